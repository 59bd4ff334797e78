import jax.numpy as jnp
import optax

tx = optax.sm3(0.1)
p = g = jnp.ones(())
s = tx.init(p)
tx.update(g, s, p)

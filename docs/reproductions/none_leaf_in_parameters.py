import jax.numpy as jnp
import optax

tx = optax.contrib.galore(0.1)
p = g = {"w": jnp.ones((4, 2)), "n": None}
s = tx.init(p)
tx.update(g, s, p)

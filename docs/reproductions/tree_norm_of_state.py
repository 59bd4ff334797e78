import jax.numpy as jnp
import optax

tx = optax.noisy_sgd(0.1, key=7)
p = jnp.ones(4)
s = tx.init(p)
optax.tree.norm(s)

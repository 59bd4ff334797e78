import jax.numpy as jnp
import optax

tx = optax.noisy_sgd(0.1, key=7)
us = []
for p in ({"b": jnp.ones(4)}, {"a": jnp.ones(4), "b": jnp.ones(4)}):
    g = optax.tree.zeros_like(p)
    s = tx.init(p)
    u, s = tx.update(g, s, p)
    us.append(u["b"])
assert jnp.allclose(*us), us

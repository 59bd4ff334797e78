import jax.numpy as jnp
import optax

tx = optax.contrib.prodigy(1.0)
p = jnp.ones((4, 2))
s = tx.init(p)
for g in (0 * p, 0 * p, p):
    u, s = tx.update(g, s, p)
    assert jnp.isfinite(u).all(), u

import jax.numpy as jnp
import optax

tx = optax.contrib.prodigy(1.0)
p = g = jnp.ones((4, 2), jnp.float16)
s = tx.init(p)
for _ in range(2):
    u, s = tx.update(g, s, p)
    assert jnp.isfinite(u).all(), u

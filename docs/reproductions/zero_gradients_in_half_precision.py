import jax.numpy as jnp
import optax

tx = optax.adam(0.1)
for dtype in (jnp.bfloat16, jnp.float16):
    p = jnp.ones((4, 2), dtype)
    s = tx.init(p)
    for g in (0 * p, 0 * p, p):
        u, s = tx.update(g, s, p)
        assert jnp.isfinite(u).all(), (dtype, u)

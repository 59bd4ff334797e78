import jax
import jax.numpy as jnp
import optax

tx = optax.adafactor(0.1)
p = g = jnp.ones((4, 2))
s = tx.init(p)
last = jnp.int32(2**31 - 1)
s = jax.tree.map(lambda x: last if x.dtype == jnp.int32 else x, s)
u, s = tx.update(g, s, p)
assert jnp.isfinite(u).all(), u

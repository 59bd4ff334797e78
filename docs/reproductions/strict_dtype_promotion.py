import jax
import jax.numpy as jnp
import optax

tx = optax.adam(0.1)
p = g = {"w": jnp.ones((4, 2)), "b": jnp.ones(4)}
with jax.numpy_dtype_promotion("strict"):
    s = tx.init(p)
    jax.jit(lambda s: tx.update(g, s, p))(s)

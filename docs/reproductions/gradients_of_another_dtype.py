import jax
import jax.numpy as jnp
import optax

tx = optax.adam(0.1)
p = {"w": jnp.ones((4, 2), jnp.bfloat16), "b": jnp.ones(4, jnp.bfloat16)}
g = optax.tree.cast(p, jnp.float32)
s = tx.init(p)
u, after = tx.update(g, s, p)
before, after = (jax.tree.leaves(x) for x in (s, after))
assert [x.dtype for x in after] == [x.dtype for x in before]

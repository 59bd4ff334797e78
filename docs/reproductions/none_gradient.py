import jax
import jax.numpy as jnp
import optax

tx = optax.adam(0.1)
p = {"w": jnp.ones((4, 2)), "b": jnp.ones(4)}
s = tx.init(p)
g = {"w": p["w"], "b": None}
u, after = tx.update(g, s, p)
assert u["b"] is None
assert jax.tree.structure(after) == jax.tree.structure(s)

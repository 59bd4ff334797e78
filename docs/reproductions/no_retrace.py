import jax
import jax.numpy as jnp
import optax

tx = optax.lbfgs()
update = jax.jit(tx.update, static_argnames="value_fn")
p = g = jnp.ones(4)
s = tx.init(p)
for _ in range(3):
    u, s = update(g, s, p, value=optax.tree.sum(p), grad=g, value_fn=optax.tree.sum)
assert update._cache_size() == 1, update._cache_size()

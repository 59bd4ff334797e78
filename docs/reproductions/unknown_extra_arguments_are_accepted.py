import jax.numpy as jnp
import optax

tx = optax.lbfgs()
tx = optax.with_extra_args_support(tx)
p = g = jnp.ones(4)
s = tx.init(p)
tx.update(g, s, p, value=optax.tree.sum(p), grad=g, value_fn=optax.tree.sum, other=0)

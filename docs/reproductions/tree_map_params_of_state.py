import jax.numpy as jnp
import optax

tx = optax.lbfgs()
p = jnp.ones(4)
s = tx.init(p)
optax.tree.map_params(tx, lambda x: x, s)

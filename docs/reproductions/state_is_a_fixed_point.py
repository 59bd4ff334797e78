import jax
import jax.numpy as jnp
import optax

tx = optax.lbfgs()
p = jnp.ones(4)
s = tx.init(p)
assert not any(jax.typeof(x).weak_type for x in jax.tree.leaves(s)), s

import jax.numpy as jnp
import optax

make = optax.sgd
tx = optax.inject_hyperparams(make, hyperparam_dtype=jnp.float32)(0.1)
p = g = jnp.ones((4, 2), jnp.bfloat16)
s = tx.init(p)
for _ in range(2):
    u, s = tx.update(g, s, p)
assert u.dtype == p.dtype, u.dtype

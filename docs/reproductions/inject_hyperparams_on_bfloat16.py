import jax.numpy as jnp
import optax

make = optax.adam
p, us = jnp.ones(4, jnp.bfloat16), []
for tx in (make(0.1), optax.inject_hyperparams(make)(0.1)):
    s = tx.init(p)
    for g in (p, p):
        u, s = tx.update(g, s, p)
    us.append(u)
assert jnp.allclose(*us, rtol=0.3), us

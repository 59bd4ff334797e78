import jax.numpy as jnp
import optax

make = optax.contrib.prodigy
tx = make(0.0)
p = g = jnp.ones(4)
s = tx.init(p)
for _ in range(3):
    u, s = tx.update(g, s, p)
    assert not u.any(), u

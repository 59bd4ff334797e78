"""AdamH of marin (levanter/optim/adamh.py): norms of a bfloat16 matrix.

The norm is that of the present matrix, in the dtype of the matrix.
"""

import jax
import jax.numpy as jnp

draw = jax.random.normal
p = draw(jax.random.key(0), (64, 64)).astype(jnp.bfloat16)
start = jnp.linalg.norm(p.astype(jnp.float32))
for step in range(100):
    u = draw(jax.random.key(step + 1), p.shape).astype(jnp.bfloat16)
    size = jnp.linalg.norm(p)
    new = p - jnp.bfloat16(0.02) * u * size / jnp.linalg.norm(u)
    p = p + (new / jnp.linalg.norm(new) * size - p)
end = jnp.linalg.norm(p.astype(jnp.float32))

print(f"the norm is {end / start - 1:+.1%} after 100 steps")

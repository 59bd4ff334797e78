"""AdamH of marin (levanter/optim/adamh.py): norms of a bfloat16 matrix.

The norm is that of the present matrix, in the dtype of the matrix.
"""

import jax
import jax.numpy as jnp


def draw(seed: int) -> jax.Array:
    """A normal matrix in bfloat16."""
    return jax.random.normal(jax.random.key(seed), (64, 64)).astype(jnp.bfloat16)


def wide(matrix: jax.Array) -> jax.Array:
    """The norm in float32."""
    return jnp.linalg.norm(matrix.astype(jnp.float32))


matrix = draw(0)
before = wide(matrix)
for seed in range(1, 101):
    direction, length = draw(seed), jnp.linalg.norm(matrix)
    step = jnp.bfloat16(0.02) * direction * length / jnp.linalg.norm(direction)
    moved = matrix - step
    update = moved / jnp.linalg.norm(moved) * length - matrix
    matrix = matrix + update

print(f"the norm is {wide(matrix) / before - 1:+.1%} after 100 steps")

"""AdamH of marin (levanter/optim/adamh.py): a matrix of zeros.

The new matrix is divided by its norm, which is 0, as a step of relative length is.
"""

import jax.numpy as jnp

matrix, direction = jnp.zeros((2, 2)), jnp.ones((2, 2))
length = jnp.linalg.norm(matrix)
moved = matrix - 0.02 * length * direction / jnp.linalg.norm(direction)
projected = length * (moved / jnp.linalg.norm(moved))

print(f"a matrix of zeros is {projected[0, 0]} after a step")

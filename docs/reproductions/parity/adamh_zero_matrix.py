"""AdamH of marin (levanter/optim/adamh.py): a matrix of zeros.

The new matrix is divided by its norm, which is 0, as a step of relative length is.
"""

import jax.numpy as jnp

p, u = jnp.zeros((2, 2)), jnp.ones((2, 2))
size = jnp.linalg.norm(p)
new = p - 0.02 * u * size / jnp.maximum(jnp.linalg.norm(u), 1e-10)
new = new / jnp.linalg.norm(new) * size

print(f"a matrix of zeros is {new[0, 0]} after a step")

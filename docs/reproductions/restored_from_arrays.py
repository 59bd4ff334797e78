import io

import jax
import jax.numpy as jnp
import numpy as np
import optax

tx = optax.noisy_sgd(0.1, key=7)
p = jnp.ones(4)
s = tx.init(p)
np.savez(io.BytesIO(), *jax.tree.leaves(s))

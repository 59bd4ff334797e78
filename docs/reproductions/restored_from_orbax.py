import tempfile

import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp

tx = optax.contrib.galore(0.1)
p = {"w": jnp.ones((4, 2)), "b": jnp.ones(4)}
with tempfile.TemporaryDirectory() as folder:
    ocp.PyTreeCheckpointer().save(folder + "/state", tx.init(p))

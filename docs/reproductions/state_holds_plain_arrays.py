import jax
import jax.numpy as jnp
import optax

tx = optax.noisy_sgd(0.1, key=7)
p = jnp.ones(4)
s = tx.init(p)
for x in jax.tree.leaves(s):
    assert not jnp.issubdtype(x.dtype, jax.dtypes.prng_key), x

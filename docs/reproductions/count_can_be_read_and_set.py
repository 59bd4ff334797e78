import jax.numpy as jnp
import optax

tx = optax.adan(0.1)
p = jnp.ones(4)
s = tx.init(p)
assert optax.tree.get_all_with_path(s, "count"), s

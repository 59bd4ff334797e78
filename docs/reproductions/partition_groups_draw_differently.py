import jax.numpy as jnp
import optax

tx = optax.noisy_sgd(0.1, key=7)
tx = optax.partition({"x": tx, "y": tx}, {"a": "x", "b": "y"})
p = {"a": jnp.ones(4), "b": jnp.ones(4)}
g = optax.tree.zeros_like(p)
s = tx.init(p)
u, s = tx.update(g, s, p)
assert (u["a"] != u["b"]).all(), u

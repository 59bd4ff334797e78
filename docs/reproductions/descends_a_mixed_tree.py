import jax.numpy as jnp
import optax

tx = optax.sm3(0.1)
p = start = {"s": jnp.ones(()), "b": jnp.ones(4), "w": jnp.ones((4, 2))}
s = tx.init(p)
for _ in range(100):
    g = p  # of ½ ‖p‖²
    u, s = tx.update(g, s, p)
    p = optax.apply_updates(p, u)
assert optax.tree.norm(p) < 0.99 * optax.tree.norm(start)

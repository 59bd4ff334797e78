import jax
import jax.numpy as jnp
import optax

tx = optax.contrib.madgrad(0.1)
step = jax.jit(lambda p, s, g: tx.update(g, s, p), donate_argnums=(0, 1))
for _ in range(2):
    p, g = jnp.ones(4), jnp.ones(4)
    s = tx.init(p)
    step(p, s, g)

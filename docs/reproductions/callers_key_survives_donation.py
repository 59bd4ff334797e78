import jax
import jax.numpy as jnp
import optax

key = jax.random.key(7)
tx = optax.noisy_sgd(0.1, key=key)
p = g = jnp.ones(4)
step = jax.jit(lambda s: tx.update(g, s, p)[1], donate_argnums=0)
for _ in range(2):
    s = tx.init(p)
    step(s)

import jax.numpy as jnp
import optax

tx = optax.novograd(0.1)
g = jnp.ones(4)
message = "params"
try:
    tx.update(g, tx.init(g))
except (TypeError, ValueError) as error:
    message = str(error)
assert "params" in message, message

import inspect

import jax.numpy as jnp
import optax

make = optax.novograd
arguments = inspect.signature(make).parameters.values()
names = [x.name for x in arguments if x.annotation == optax.ScalarOrSchedule]
tx = make(**dict.fromkeys(names, lambda count: 0.1))
p = g = jnp.ones(4)
s = tx.init(p)
tx.update(g, s, p)

import inspect

import jax
import jax.numpy as jnp
import optax

make = optax.contrib.prodigy
numbers = {
    name: jnp.float32(0.1 if argument.default is argument.empty else argument.default)
    for name, argument in inspect.signature(make).parameters.items()
    if argument.default is argument.empty or type(argument.default) is float
}
tx, p, g = make(**numbers), jnp.ones(4), jnp.ones(4)
s = tx.init(p)
for state in (s, tx.update(g, s, p)[1]):
    arrays = [p, g, *numbers.values(), *jax.tree.leaves(state)]
    addresses = [array.unsafe_buffer_pointer() for array in arrays]
    assert len(addresses) == len(set(addresses))

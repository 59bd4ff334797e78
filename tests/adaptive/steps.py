"""Updates of adaptive methods on given gradients, to be held against oracles."""

import jax
import jax.numpy as jnp
import numpy as np

STEPS = 30
RNG = np.random.default_rng(0)
GRADIENTS = [
    {"w": RNG.normal(size=(2, 3)) * 0.3, "b": RNG.normal(size=3) * 0.1 + 0.2}
    for _ in range(STEPS)
]


def run(tx, gradients=GRADIENTS, dtype=jnp.float32):
    """The updates of all steps, and the last state."""
    params = jax.tree.map(lambda g: jnp.zeros(np.shape(g), dtype), gradients[0])
    state, outputs = tx.init(params), []
    update = jax.jit(tx.update)
    for g in gradients:
        grads = jax.tree.map(lambda x: jnp.asarray(x, dtype), g)
        updates, state = update(grads, state)
        outputs.append(jax.tree.map(np.asarray, updates))
    return outputs, state


def updates_of(tx, gradients=GRADIENTS, dtype=jnp.float32):
    """The updates of all steps."""
    return run(tx, gradients, dtype)[0]


def assert_close(actual, expected, **tolerance):
    """Holds the updates of all steps to others."""
    for a, e in zip(actual, expected, strict=True):
        for name in e:
            np.testing.assert_allclose(a[name], e[name], **tolerance)


def differ(actual, expected):
    """Whether the updates of any step differ from others."""
    return any(
        not np.allclose(a[k], e[k], rtol=1e-5)
        for a, e in zip(actual, expected, strict=True)
        for k in e
    )

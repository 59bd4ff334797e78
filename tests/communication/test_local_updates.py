"""Local updates against what their papers write, and what they promise."""

import numpy as np
import optax
import pytest

import optax_extras as ox
from optax_extras.compressors import quantized

from communication.local import parameters, run
from communication.test_dgc import OVER_TWO
from communication.workers import SHAPES, N, gradients
from specs import spec

STEPS = 20
AXIS = {"axis_name": "data", "workers": N}
INNER = {"inner": optax.sgd(0.1), "axis_name": "data", "workers": 2}
COUNTS = {
    "count_can_be_read_and_set": "the states of both transformations have counts too"
}
SPECS = [
    spec(
        ox.local_updates,
        static={
            **INNER,
            "inner": optax.chain(ox.trace_with_bias_correction(0.5), optax.scale(-0.1)),
            "outer": optax.sgd(0.7),
            "every": 2,
            "compressor": quantized(8),
        },
        buffers=6,
        temporaries=20,
        expected_failures=COUNTS,
        **OVER_TWO,
    ),
    spec(
        ox.diloco,
        learning_rate=0.7,
        momentum=0.9,
        schedules=("learning_rate", "momentum"),
        static={**INNER, "every": 3},
        buffers=4,
        temporaries=20,
        expected_failures=COUNTS,
        **OVER_TWO,
    ),
    spec(
        ox.fedavg,
        learning_rate=1.0,
        schedules=("learning_rate",),
        static={**INNER, "every": 3},
        buffers=2,
        temporaries=20,
        **OVER_TWO,
    ),
]


def adamw(theta, g, state, t, rate=0.1, b1=0.9, b2=0.999, eps=1e-8, decay=0.01):
    """A step of AdamW in float64."""
    m, v = state
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g**2
    direction = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
    return theta - rate * (direction + decay * theta), (m, v)


def oracle(params, grads, every, ends, weights=None, outer=(0.7, 0.9)):
    """Parameters of each worker after every step."""
    rate, momentum = outer
    reference = {k: np.asarray(x, np.float64) for k, x in params.items()}
    theta = {k: np.stack([x] * N) for k, x in reference.items()}
    state = {k: [(np.zeros_like(x),) * 2] * N for k, x in reference.items()}
    taken, examples = np.zeros(N, int), {k: np.zeros(N) for k in params}
    trace = {k: np.zeros_like(x) for k, x in reference.items()}
    for t in range(len(grads["b"])):
        w = np.ones(N) if weights is None else weights[t]
        for i in range(N):
            if not w[i] or any(not np.isfinite(grads[k][t, i]).all() for k in params):
                continue
            taken[i] += 1
            for k in params:
                examples[k][i] += w[i]
                theta[k][i], state[k][i] = adamw(
                    theta[k][i], np.float64(grads[k][t, i]), state[k][i], taken[i]
                )
        for k in params:
            if (t + 1) % every == ends[k] and examples[k].sum():
                delta = reference[k] - theta[k]
                mean = np.tensordot(examples[k] / examples[k].sum(), delta, 1)
                trace[k] = momentum * trace[k] + mean
                reference[k] = reference[k] - rate * (mean + momentum * trace[k])
                theta[k][:] = reference[k]
                examples[k][:] = 0
        yield {k: x.copy() for k, x in theta.items()}


def close(found, expected, atol=2e-5):
    for t, after in enumerate(expected):
        for name, values in after.items():
            np.testing.assert_allclose(
                found[name][t], values, atol=atol, err_msg=f"{name}, step {t}"
            )


@pytest.mark.parametrize("fragments", [1, 2])
def test_diloco(fragments):
    grads, params = gradients(STEPS), parameters(SHAPES)
    tx = ox.diloco(
        optax.adamw(0.1, weight_decay=0.01), every=3, fragments=fragments, **AXIS
    )
    found, _ = run(tx, params, grads)
    # b and w first, as the elements of b and e are fewer than those of w.
    ends = dict.fromkeys(SHAPES, 0) if fragments == 1 else {"b": 0, "e": 1, "w": 0}
    close(found, oracle(params, grads, 3, ends))

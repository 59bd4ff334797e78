"""What papers and codes write about wrappers, noise and low precision, in NumPy."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
from parity_numpy import at, descent, qhadam
from parity_steps import GRADIENTS, PARAMS, STEPS, Path, ours

import optax_extras as ox

ADAM = {"b1": 0.9, "b2": 0.999}
# The smallest numbers of bits that a momentum of ½ and these gradients need are exact.
COARSE = {name: np.round(8 * g) / 8 for name, g in GRADIENTS.items()}


def kept(g: Any, *, fewest: float) -> Any:
    """C-AdamW: directions of Adam that agree with the gradient, over their share."""
    found = []
    for now, u in zip(g, qhadam(g, **ADAM), strict=True):
        mask = u * now > 0
        found.append(u * mask / max(mask.mean(), fewest))
    return np.stack(found)


def kept_lion(g: Any, *, rate: float) -> Any:
    """Lion over the share that it keeps."""
    m, found = np.zeros(g.shape[1:]), []
    for now in g:
        u = np.sign(0.9 * m + 0.1 * now)
        m = 0.99 * m + 0.01 * now
        mask = u * now > 0
        found.append(-rate * u * mask / max(mask.mean(), 1e-3))
    return np.stack(found)


def adamh(rate: float, inner: float, *, shrink: float = 0.0) -> Path:
    """AdamH: the matrix turns by the rate, and the vector has the steps of Adam.

    Behind it, a share `shrink` of all parameters is taken away.
    """
    w, found = PARAMS["w"], []
    for u in qhadam(GRADIENTS["w"], **ADAM):
        # As the code does, with the norm of the present matrix.
        size = np.linalg.norm(w)
        new = w - rate * u * size / np.linalg.norm(u)
        new = new / np.linalg.norm(new) * size
        found.append(new - w - shrink * w)
        w = w + found[-1]
    matrix = {"w": np.stack(found)}
    vector = {"b": inner * qhadam(GRADIENTS["b"], **ADAM)}
    return descent(vector, 1.0, shrink) | matrix


def without_uphill_steps(
    g: Any, *, rate: float, decay: float, takes: bool = False
) -> Any:
    """Momentum that starts again where its step goes uphill, or after it `takes` it."""
    m, found = np.zeros(g.shape[1:]), []
    for now in g:
        trial = decay * m + now
        uphill = (trial * now).sum() < 0
        if uphill and not takes:
            trial = now
        found.append(-rate * trial)
        m = np.zeros_like(m) if uphill and takes else trial
    return np.stack(found)


def broken(at_steps: tuple[int, ...], value: float) -> Path:
    """The gradients, of which some steps are multiplied by a number, or NaN."""
    found = {name: g.copy() for name, g in GRADIENTS.items()}
    for g in found.values():
        g[list(at_steps)] *= value
    return found


def slices(inner: optax.GradientTransformation) -> Path:
    """The steps of an optimizer that has the rows of the matrix as leaves."""

    def parts(tree: Mapping[str, Any], axis: int) -> dict[str, Any]:
        rows = np.split(tree["w"], 4, axis)
        named = {f"w{i}": np.squeeze(row, axis) for i, row in enumerate(rows)}
        return {"b": tree["b"], **named}

    found = ours(inner, parts(GRADIENTS, 1), parts(PARAMS, 0))
    return {"b": found["b"], "w": np.stack([found[f"w{i}"] for i in range(4)], 1)}


TWINS = {"b": GRADIENTS["b"], "v": GRADIENTS["w"][::-1].copy(), "w": GRADIENTS["w"]}
TWIN_PARAMS = {"b": PARAMS["b"], "v": 2 - PARAMS["w"], "w": PARAMS["w"]}


def bf16(x: Any) -> Any:
    """Rounded to the nearest number of bfloat16."""
    return np.asarray(x, np.float32).astype(ml_dtypes.bfloat16).astype(np.float64)


def stored_momentum(g: Any, *, rate: float, decay: float, emits: bool = True) -> Any:
    """Momentum whose trace is stored in bfloat16; `emits` steps from what is stored."""
    m, found = np.zeros(g.shape[1:]), []
    for now in g:
        wide = decay * m + now
        m = bf16(wide)
        found.append(-rate * (m if emits else wide))
    return np.stack(found)


def kahan(g: Any, start: Any, *, rate: float) -> Any:
    """Parameters in bfloat16, and what rounding left of the last sum."""
    p, rest, found = bf16(start), np.zeros_like(start), []
    for now in g:
        wanted = rest - rate * now
        new = bf16(p + wanted)
        rest, p = bf16(wanted - (new - p)), new
        found.append(p)
    return np.stack(found)


def in_bfloat16(mode: str, grads: Path, params: Path, *, rate: float) -> Path:
    """The parameters that SGD leaves in bfloat16, after each step."""
    rounded = {name: jnp.asarray(p, jnp.bfloat16) for name, p in params.items()}
    tx = ox.keep_bfloat16_params(optax.sgd(rate), mode)
    state, found = tx.init(rounded), []
    update = jax.jit(tx.update)
    for t in range(len(next(iter(grads.values())))):
        now = {name: jnp.asarray(g[t], jnp.bfloat16) for name, g in grads.items()}
        updates, state = update(now, state, rounded)
        rounded = optax.apply_updates(rounded, updates)
        found.append({name: np.asarray(p, np.float64) for name, p in rounded.items()})
    return {name: np.stack([p[name] for p in found]) for name in rounded}


# Steps of a fraction of the last place of 1, which the nearest number never leaves.
MANY = {"b": np.full((STEPS, 4096), 1.0)}
MANY_PARAMS = {"b": np.full(4096, 1.0)}
FRACTION = 2.0**-12


def mean_of_many() -> Path:
    """The mean of 4096 parameters after each step, less the first one."""
    found = in_bfloat16("stochastic", MANY, MANY_PARAMS, rate=FRACTION)
    # Until some tens of steps the mean is of few that moved.
    return {"mean": found["b"].mean(1, keepdims=True)[99:] - 1}


def exact_mean() -> Path:
    """What the sum of the steps is."""
    return {"mean": -FRACTION * np.arange(100, STEPS + 1.0)[:, None]}


def rising(t: Any) -> Any:
    """A standard deviation that changes."""
    return 0.1 + 0.01 * t


def differences_of_draws(key: int) -> Path:
    """ξ of the next step less ξ of this one, from draws that are seen one by one.

    Where the standard deviation is 1 at even steps and 0 at others, each step shows one
    draw.
    """
    zero = {name: np.zeros_like(g) for name, g in GRADIENTS.items()}

    def one_by_one(first: int) -> Path:
        tx = ox.add_anticorrelated_noise(lambda t: (t + first) % 2 * 1.0, key=key)
        return ours(tx, zero)

    shown = one_by_one(0), one_by_one(1)
    found = {}
    for name in zero:
        # ξ of step t + 1 is added in step t, where it is not 0.
        draws = [shown[t % 2][name][t] for t in range(STEPS)]
        first = -shown[1][name][0]
        xi = np.stack([first, *draws])
        sizes = np.array([at(rising, t) for t in range(STEPS + 1)])
        sized = xi * sizes.reshape(-1, *(1 for _ in xi.shape[1:]))
        found[name] = GRADIENTS[name] + sized[1:] - sized[:-1]
    return found


def noise(tx: optax.GradientTransformation) -> Path:
    """What a transformation makes of gradients of zero."""
    return ours(tx, {name: np.zeros_like(g) for name, g in GRADIENTS.items()})


def psgld(draws: Path, *, rate: Any, temperature: float) -> Path:
    """Li et al.: RMSProp's scale for the gradient, and its root for the noise."""
    found = {}
    for name, g in GRADIENTS.items():
        v, steps = np.zeros(g.shape[1:]), []
        for t, now in enumerate(g):
            v = 0.99 * v + 0.01 * now**2
            scale = 1 / (1e-5 + np.sqrt(v))
            size = np.sqrt(2 * at(rate, t) * temperature * scale)
            steps.append(-at(rate, t) * scale * now + size * draws[name][t])
        found[name] = np.stack(steps)
    return found


WIDE = {"w": np.zeros((4, 2**16))}


def deviations_at(tx: optax.GradientTransformation) -> Path:
    """Standard deviations of the first updates, each of 2^16 numbers."""
    found = ours(tx, WIDE, {"w": WIDE["w"][0]})
    return {"std": found["w"].std(1, keepdims=True)}

"""Gradients that both sides of a comparison see, their steps, and how far they differ.

A path maps the name of a leaf to the updates of all steps, (steps, *shape).
"""

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

Path = Mapping[str, np.ndarray]

STEPS = 200
SHAPES = {"b": (5,), "w": (4, 3)}


def gradients(steps: int = STEPS, shapes: Any = None, seed: int = 0) -> dict[str, Any]:
    """Normal gradients whose scale and mean swing, the latter between both signs."""
    rng = np.random.default_rng(seed)
    t = np.arange(steps)
    found = {}
    for name, shape in (shapes or SHAPES).items():
        column = (steps, *(1 for _ in shape))
        mean, scale = np.cos(t / 25), 10 ** (0.5 * np.sin(t / 15))
        noise = rng.normal(size=(steps, *shape))
        found[name] = scale.reshape(column) * (noise + mean.reshape(column))
    return found


GRADIENTS = gradients()
PARAMS = {
    name: np.random.default_rng(9).normal(size=shape) for name, shape in SHAPES.items()
}


def ours(
    tx: optax.GradientTransformation,
    grads: Path = GRADIENTS,
    params: Path = PARAMS,
    *,
    dtype: Any = np.float64,
    seen: Callable[[Any, Any], Path] | None = None,
) -> Path:
    """The updates of a transformation, whose parameters move by them.

    `seen` maps state and parameters before a step to what is kept beside the updates.
    """

    def step(carry: Any, g: Any) -> Any:
        params, state = carry
        beside = {} if seen is None else seen(state, params)
        updates, state = tx.update(g, state, params)
        return (optax.apply_updates(params, updates), state), {**updates, **beside}

    with jax.enable_x64(dtype == np.float64):
        start = jax.tree.map(lambda x: jnp.asarray(x, dtype), dict(params))
        given = jax.tree.map(lambda x: jnp.asarray(x, dtype), dict(grads))
        run = jax.jit(lambda p, s, g: jax.lax.scan(step, (p, s), g)[1])
        return jax.tree.map(np.asarray, run(start, tx.init(start), given))


def schedule(function: Callable[[Any], Any], steps: int = STEPS) -> Path:
    """The values of a schedule."""
    with jax.enable_x64(True):
        return {"value": np.asarray(jax.vmap(function)(jnp.arange(steps)))}


def deviation(found: Path, expected: Path) -> float:
    """The largest difference of a step to the largest number that was expected of it.

    Where a step is expected to be 0, any other number is infinitely far away.
    """
    if found.keys() != expected.keys():
        raise ValueError(f"leaves {sorted(found)} beside {sorted(expected)}")
    far, size = 0.0, 0.0
    for name, value in expected.items():
        if found[name].shape != value.shape:
            raise ValueError(f"{name}: {found[name].shape} beside {value.shape}")
        rows = np.asarray(value, np.float64).reshape(len(value), -1)
        other = np.asarray(found[name], np.float64).reshape(len(value), -1)
        far = np.maximum(far, np.abs(other - rows).max(1, initial=0))
        size = np.maximum(size, np.abs(rows).max(1, initial=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(far == 0, 0, far / size)
    return float(np.where(np.isnan(shares), np.inf, shares).max())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """An algorithm beside a reference.

    Attributes:
      names: public names that the row holds.
      options: what is set, in words.
      reference: what it is held to.
      ours: the path of this library.
      theirs: that of the reference.
      bound: below which the deviation is.
      needs: modules that the reference needs.
      measure: the deviation, from both paths.
      unit: what it is a share of, if not of the largest number of a step.
    """

    names: tuple[str, ...]
    options: str
    reference: str
    ours: Callable[[], Path]
    theirs: Callable[[], Path]
    bound: float = 1e-12
    needs: tuple[str, ...] = ()
    measure: Callable[[Path, Path], float] = deviation
    unit: str = ""

    @property
    def key(self) -> str:
        """What tells the row from all others."""
        return f"{', '.join(self.names)}; {self.options}; {self.reference}"

    def can_run(self) -> bool:
        """Whether the reference is installed."""
        return all(importlib.util.find_spec(name) for name in self.needs)

    def deviation(self) -> float:
        """How far the two are apart."""
        return self.measure(self.ours(), self.theirs())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference(Row):
    """A row that differs by intention; the bound plays no role.

    Attributes:
      what: what differs.
      why: the reason.
    """

    what: str
    why: str

"""Where adaptive methods differ from a reference by intention."""

from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import parity_numpy as paper
from parity_rows import RATE, plain, torch, whole
from parity_steps import GRADIENTS, Difference, Path, ours

import optax_extras as ox

# Steps at the start in which there is no gradient.
IDLE = 50


def raised(t: Any) -> Any:
    """A decay that jumps from ½ to 0.99."""
    where: Any = jnp.where if not isinstance(t, int) else np.where
    return where(t < 50, 0.5, 0.99) * 1.0


def idle(element: int | None = None) -> Path:
    """The gradients, of which those of an element, or all, are 0 at first."""
    found = {name: g.copy() for name, g in GRADIENTS.items()}
    if element is None:
        for g in found.values():
            g[:IDLE] = 0
    else:
        found["b"][:IDLE, element] = 0
    return found


def without_warnings(path: Callable[[], Path]) -> Callable[[], Path]:
    """A path whose divisions by zero are meant."""

    def run() -> Path:
        with np.errstate(invalid="ignore"):
            return path()

    return run


def lost(found: Path, other: Path) -> float:
    """The share of the reference that is not finite, where this library's is.

    Raises:
      RuntimeError: an update of this library is not finite either.
    """
    if not all(np.isfinite(value).all() for value in found.values()):
        raise RuntimeError("updates of the library are not finite")
    return float(np.mean([~np.isfinite(x) for v in other.values() for x in v.flat]))


def adaptive_differences() -> Iterator[Difference]:
    """Adaptive methods, most of them where decays vary."""
    yield Difference(
        names=("scale_by_qhadam", "qhadam"),
        options="ν = 1, β1 jumps from 0.5 to 0.99",
        reference="`optax.scale_by_adam`",
        what="the first moment is divided by 1 − ∏ β1, not by 1 − β1ᵗ",
        why="only the former is the weight of the gradients in it",
        ours=plain(ox.scale_by_qhadam, raised, 0.999, 1.0, 1.0),
        theirs=lambda: ours(
            optax.inject_hyperparams(optax.scale_by_adam)(b1=raised, b2=0.999)
        ),
    )
    yield Difference(
        names=("scale_by_qhadam", "qhadam"),
        options="β1 jumps from 0.5 to 0.99",
        reference="`qhoptim.pyt.QHAdam`",
        what="gradients have the weights of the paper's recursion",
        why=(
            "the code averages as a trace β m + g over its sum, which is the recursion"
            " only for constant β"
        ),
        ours=plain(ox.qhadam, RATE, raised, 0.999, 0.7, 1.0),
        **torch(
            "qhoptim.pyt:QHAdam",
            lr=RATE,
            nus=(0.7, 1.0),
            varying={"betas": lambda t: (float(raised(t)), 0.999)},
        ),
    )
    yield Difference(
        names=("scale_by_diffgrad", "diffgrad"),
        options="ε = 1e-3",
        reference="`pytorch_optimizer.DiffGrad`",
        what="ε is added to the debiased root, as in the paper's equation",
        why="the codes add it before the debiasing, which makes it larger at first",
        ours=plain(ox.diffgrad, RATE, eps=1e-3),
        **torch("pytorch_optimizer:DiffGrad", lr=RATE, eps=1e-3),
    )
    yield Difference(
        names=("scale_by_adasmooth", "adasmooth"),
        options="debias='product', changes normalized",
        reference="the source's 1 − β1ᵗ",
        what="an option: the first moment is divided by its exact weight",
        why="β1 varies in every step of this method; the source's form is the default",
        ours=plain(ox.adasmooth, RATE, debias="product", normalize=True),
        theirs=plain(ox.adasmooth, RATE, debias="power", normalize=True),
    )
    yield Difference(
        names=("scale_by_adashift", "adashift"),
        options=f"φ = element, an element without a gradient in the first {IDLE} steps",
        reference="`pytorch_optimizer.AdaShift`",
        what="while v = 0, the update is 0",
        why="it would be the gradient over ε, 1e-10; the authors' code has 0 too",
        ours=lambda: ours(ox.adashift(RATE, spatial="element"), idle(0)),
        **torch("pytorch_optimizer:AdaShift", grads=idle(0), lr=RATE, reduce_func=None),
    )
    yield Difference(
        names=("scale_by_adai", "adai"),
        options=f"no gradients in the first {IDLE} steps",
        reference="the paper's equations",
        what="while all gradients are 0, β1 is 1 − ε",
        why="the equation divides 0 by 0, and NaN stays in the first moment",
        ours=lambda: ours(ox.adai(RATE), idle()),
        theirs=without_warnings(whole(paper.adai, grads=idle())),
        measure=lost,
        unit="of the reference's updates are NaN",
    )
    tiny = {name: g / 100 for name, g in GRADIENTS.items()}
    yield Difference(
        names=("scale_by_adai", "adai"),
        options="gradients a hundredth as large",
        reference="`pytorch_optimizer.Adai`",
        what="the mean of squares is not raised to ε",
        why="by the paper's equation, β1 does not depend on the scale of gradients",
        ours=lambda: ours(ox.adai(RATE), tiny),
        **torch("pytorch_optimizer:Adai", grads=tiny, lr=RATE),
    )

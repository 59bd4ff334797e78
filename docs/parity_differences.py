"""Where the library differs from a reference by intention, but for adaptive methods."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import parity_numpy as paper
import parity_worker_numpy as of_workers
import parity_workers
import parity_wrapped as wrapped
from parity_rows import RATE, each, falling, plain, torch, whole
from parity_steps import GRADIENTS, PARAMS, STEPS, Difference, Path, ours, schedule
from parity_torch import clipped_norms
from parity_workers import AXIS, together
from parity_wrapper_rows import SPIKY

import optax_extras as ox
from optax_extras import compressors
from optax_extras.codecs import bfloat16
from optax_extras.wrappers import Rule

# Share of the parameters that is taken away behind `hyperball`.
SHRINK = 0.001


def longer(t: Any) -> Any:
    """A period that grows from 30 to 50."""
    where: Any = jnp.where if not isinstance(t, int) else np.where
    return where(t < 100, 30, 50)


def distance(path: Path) -> Path:
    """How far the parameters have moved after all steps, as a path of one step."""
    return {name: steps.sum(0)[None] for name, steps in path.items()}


def momentum_differences() -> Iterator[Difference]:
    """Momentum and schedules."""
    yield Difference(
        names=("momentum_sgd",),
        options="rate falls",
        reference="`torch.optim.SGD`",
        what="the learning rate is inside the velocity",
        why=(
            "it is the equation of the sources, and a lower rate then acts on new"
            " gradients only; `learning_rate_inside=False` is torch's form"
        ),
        ours=plain(ox.momentum_sgd, falling, 0.9),
        **torch("torch.optim:SGD", lr=0.1, momentum=0.9, varying={"lr": falling}),
    )
    damped = {"momentum": 0.9, "dampening": 0.9}
    yield Difference(
        names=("trace_with_bias_correction",),
        options="γ = 0.9",
        reference="`torch.optim.SGD`, dampening = γ",
        what="the bias of the first steps is divided out; torch damps all but one",
        why="a constant gradient has its full gain from the first step on",
        ours=plain(
            optax.chain, ox.trace_with_bias_correction(0.9), optax.scale(-RATE * 0.1)
        ),
        **torch("torch.optim:SGD", lr=RATE, **damped),
    )
    yield Difference(
        names=("srsgd",),
        options="F grows from 30 to 50 at step 100",
        reference="the paper's t mod F",
        what="j counts on to the new F",
        why=(
            "t mod F jumps where F changes: here from 9 to 0, and the momentum from"
            " 0.75 to 0"
        ),
        ours=plain(ox.srsgd, RATE, longer),
        theirs=lambda: {
            name: paper.restarted(
                g,
                PARAMS[name],
                rate=RATE,
                momenta=paper.restarts(longer, STEPS, counts_on=False),
            )
            for name, g in GRADIENTS.items()
        },
    )
    left = 1 - np.arange(STEPS) / 150
    yield Difference(
        names=("demon",),
        options="T = 150, 200 steps",
        reference="the paper's formula",
        what="the momentum stays 0 after T steps",
        why="the formula becomes negative there",
        ours=lambda: schedule(ox.demon(0.9, 150)),
        theirs=lambda: {"value": 0.9 * left / (0.1 + 0.9 * left)},
    )


def clipping_differences() -> Iterator[Difference]:
    """Clipping, on gradients with four spikes."""
    yield Difference(
        names=("clip_by_percentile",),
        options="10 %, window 50",
        reference="the paper's algorithm",
        what="the last norms count, 1024 by default, not all",
        why="a compiled step has a fixed memory; the same until the window is full",
        ours=lambda: ours(ox.clip_by_percentile(10.0, window=50), SPIKY),
        theirs=whole(paper.autoclip, grads=SPIKY, percentile=10.0),
    )
    yield Difference(
        names=("clip_by_percentile",),
        options="10 %",
        reference="`torch.nn.utils.clip_grad_norm_`, which the authors call",
        what="gradients are divided by their norm, not by the norm and 1e-6",
        why="the norm is then the clip; nothing is divided where the norm is 0",
        ours=plain(ox.clip_by_percentile, 10.0),
        theirs=partial(clipped_norms, 10.0),
        needs=("torch",),
    )
    yield Difference(
        names=("clip_by_zscore",),
        options="the defaults",
        reference="the authors' code (bluorion-com/ZClip)",
        what="no clipping to a norm of 1, and no 1e-6 beside the norm",
        why="a fixed norm is `optax.clip_by_global_norm`, which can be put behind",
        ours=lambda: ours(ox.clip_by_zscore(), SPIKY),
        theirs=whole(paper.zclip, grads=SPIKY, most=1.0, eps=1e-6),
    )


def wrapper_differences() -> Iterator[Difference]:
    """Wrappers and low precision."""
    yield Difference(
        names=("cautious",),
        options="Lion",
        reference="`pytorch_optimizer.Lion(cautious=True)`",
        what="the scale is 1 over the kept share, not d / (kept + 1)",
        why=(
            "the latter is not 1 where all is kept; the authors' AdamW has the former,"
            " their Lion the latter"
        ),
        ours=lambda: ours(ox.cautious(optax.lion(RATE, weight_decay=0.0))),
        **torch(
            "pytorch_optimizer:Lion",
            lr=RATE,
            betas=(0.9, 0.99),
            weight_decay=0.0,
            cautious=True,
        ),
    )
    shrink = optax.add_decayed_weights(-SHRINK)
    yield Difference(
        names=("hyperball",),
        options=f"Adam, with a weight decay of {SHRINK:g} behind it",
        reference="the equations of marin's AdamH",
        what="a matrix goes back to its norm at `init`, not to the present one",
        why="it is the paper's; what else changes the norm does not add up",
        ours=lambda: ours(
            optax.chain(ox.hyperball(optax.adam(RATE), 0.02), shrink),
        ),
        theirs=lambda: wrapped.adamh(0.02, RATE, shrink=SHRINK),
    )
    yield Difference(
        names=("adaptive_restart",),
        options="momentum 0.9",
        reference="the paper's rule, after the step",
        what="the state starts anew before the step that would go uphill",
        why="plain momentum may diverge if it takes that step",
        ours=lambda: ours(ox.adaptive_restart(optax.sgd(RATE, 0.9))),
        theirs=whole(wrapped.without_uphill_steps, rate=RATE, decay=0.9, takes=True),
    )
    spike = wrapped.broken((120,), 1000.0)
    yield Difference(
        names=("skip_spikes",),
        options="AdamW, one gradient 1000 times as large",
        reference="`optax.apply_if_finite`",
        what="a spike is left out",
        why="it is finite, and stays in the second moment for 1000 steps",
        ours=lambda: ours(ox.skip_spikes(optax.adamw(RATE)), spike),
        theirs=lambda: ours(optax.apply_if_finite(optax.adamw(RATE), 5), spike),
        measure=lambda found, other: of_workers.others(
            distance(found), distance(other)
        ),
        unit="of the elements end elsewhere",
    )
    clip = optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam())
    methods = {n: optax.chain(clip, optax.scale(-RATE)) for n in GRADIENTS}
    yield Difference(
        names=("with_rules",),
        options="Adam behind a clip to the global norm of 1",
        reference="`optax.partition`",
        what="the norm is that of all gradients",
        why="the inner method sees all leaves; `partition` has a norm of each group",
        ours=lambda: ours(ox.with_rules(clip, RATE, {"w": Rule()})),
        theirs=lambda: ours(optax.partition(methods, {n: n for n in GRADIENTS})),
    )
    codecs = {"trace": bfloat16(stochastic=False)}
    yield Difference(
        names=("compress_state",),
        options="momentum ½ in bfloat16; float32",
        reference="the step of the wide trace, which is rounded after it",
        what="the step is that of the trace as it is stored",
        why="XLA then needs no second copy of the state",
        ours=lambda: ours(
            ox.compress_state(optax.sgd(0.125, 0.5), codecs),
            wrapped.COARSE,
            dtype=np.float32,
        ),
        theirs=each(
            wrapped.stored_momentum,
            grads=wrapped.COARSE,
            rate=0.125,
            decay=0.5,
            emits=False,
        ),
    )


def worker_differences() -> Iterator[Difference]:
    """Means of compressed gradients."""

    def exact(values: Any) -> Any:
        return values

    top = ox.compressed_mean(compressors.top_k(0.1), **AXIS)
    dgc = ox.deep_gradient_compression(parity_workers.RATE, 0.5, 0.1, **AXIS)
    for name, tx, reference in (
        ("compressed_mean", top, partial(of_workers.with_feedback, 0.1, exact)),
        ("deep_gradient_compression", dgc, partial(of_workers.dgc, 0.1, 0.5, exact)),
    ):
        yield Difference(
            names=(name,),
            options="a tenth of the elements; parameters after 200 steps",
            reference="values in single precision",
            what="values travel as bfloat16",
            why="half of the bytes; what is rounded away is added to the next message",
            ours=lambda tx=tx: distance(together(tx)),
            theirs=lambda reference=reference: distance(reference()),
        )

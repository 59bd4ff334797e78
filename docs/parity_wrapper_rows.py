"""The table of parity as data: clipping, wrappers and low precision."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import optax
import parity_numpy as paper
import parity_wrapped as wrapped
from parity_rows import DECAY, RATE, each, plain, torch, whole
from parity_steps import PARAMS, Row, ours

import optax_extras as ox
from optax_extras.codecs import bfloat16
from optax_extras.wrappers import Rule

BAD = (20, 77, 78, 150)
SPIKY = wrapped.broken((60, 110, 115, 180), 20.0)
GROUPS = {"b": {"lr": RATE / 2, "weight_decay": 0.0}}
RULES = {"b": Rule(lr_multiplier=0.5, weight_decay=0.0)}


def partitioned() -> optax.GradientTransformation:
    """What `RULES` say, as a method for each leaf."""
    methods = {
        "b": optax.adamw(RATE / 2, weight_decay=0.0),
        "w": optax.adamw(RATE, weight_decay=DECAY),
    }
    return optax.partition(methods, {"b": "b", "w": "w"})


def plain_of_spikes(tx: optax.GradientTransformation) -> Any:
    """The path on gradients of which four are 20 times as large."""
    return partial(ours, tx, SPIKY)


def clipping_rows() -> Iterator[Row]:
    """AutoClip and ZClip."""
    for percentile in (10.0, 90.0):
        yield Row(
            names=("clip_by_percentile",),
            options=f"{percentile:.0f} %",
            reference="the paper's algorithm, with `numpy.percentile`",
            ours=plain_of_spikes(ox.clip_by_percentile(percentile)),
            theirs=whole(paper.autoclip, grads=SPIKY, percentile=percentile),
        )
    for threshold, decay in ((2.5, 0.97), (1.0, 0.9)):
        yield Row(
            names=("clip_by_zscore",),
            options=f"threshold {threshold:g}, decay {decay:g}",
            reference="the paper's algorithm",
            ours=plain_of_spikes(ox.clip_by_zscore(threshold, decay=decay)),
            theirs=whole(paper.zclip, grads=SPIKY, threshold=threshold, decay=decay),
        )


def wrapper_rows() -> Iterator[Row]:
    """Wrappers around optimizers of optax."""
    lamb = optax.lamb(RATE)
    yield Row(
        names=("stacked",),
        options="LAMB, four rows of a matrix",
        reference="`optax.lamb` on four leaves",
        ours=lambda: ours(ox.stacked(lamb, {"w": 0})),
        theirs=lambda: wrapped.slices(lamb),
    )
    twins = partial(ours, grads=wrapped.TWINS, params=wrapped.TWIN_PARAMS)
    yield Row(
        names=("bucketed",),
        options="LAMB, two leaves of one shape",
        reference="`optax.lamb`",
        ours=lambda: twins(ox.bucketed(lamb)),
        theirs=lambda: twins(lamb),
    )
    yield Row(
        names=("record",),
        options="AdamW",
        reference="`optax.adamw`",
        ours=lambda: ours(ox.record(optax.adamw(RATE), ["grad_norm", "update_ratio"])),
        theirs=plain(optax.adamw, RATE),
    )
    for fewest in (1e-3, 1.0):
        yield Row(
            names=("cautious",),
            options=f"Adam, min_fraction {fewest:g}",
            reference="the scale of the authors' AdamW",
            ours=lambda fewest=fewest: ours(
                ox.cautious(optax.adam(RATE), min_fraction=fewest)
            ),
            theirs=lambda fewest=fewest: paper.descent(
                paper.each(wrapped.kept, fewest=fewest), RATE
            ),
        )
    yield Row(
        names=("cautious",),
        options="Lion",
        reference="Lion over the share that it keeps",
        ours=lambda: ours(ox.cautious(optax.lion(RATE, weight_decay=0.0))),
        theirs=each(wrapped.kept_lion, rate=RATE),
    )
    yield Row(
        names=("hyperball",),
        options="Adam",
        reference="the equations of marin's AdamH",
        ours=lambda: ours(ox.hyperball(optax.adam(RATE), 0.02)),
        theirs=lambda: wrapped.adamh(0.02, RATE),
    )
    yield Row(
        names=("adaptive_restart",),
        options="momentum 0.9, gradient rule",
        reference="the paper's rule, before the step",
        ours=lambda: ours(ox.adaptive_restart(optax.sgd(RATE, 0.9))),
        theirs=whole(wrapped.without_uphill_steps, rate=RATE, decay=0.9),
    )
    broken = wrapped.broken(BAD, np.nan)
    yield Row(
        names=("skip_spikes",),
        options="AdamW, four steps of NaN and no spikes",
        reference="`optax.apply_if_finite`",
        ours=lambda: ours(ox.skip_spikes(optax.adamw(RATE), threshold=1e6), broken),
        theirs=lambda: ours(optax.apply_if_finite(optax.adamw(RATE), 10), broken),
    )
    yield Row(
        names=("with_rules",),
        options="AdamW, half the rate and no decay for a leaf",
        reference="`optax.partition`",
        ours=lambda: ours(
            ox.with_rules(optax.scale_by_adam(), RATE, RULES, weight_decay=DECAY)
        ),
        theirs=lambda: ours(partitioned()),
    )
    yield Row(
        names=("with_rules",),
        options="AdamW, half the rate and no decay for a leaf",
        reference="`torch.optim.AdamW` with two groups",
        ours=lambda: ours(
            ox.with_rules(optax.scale_by_adam(), RATE, RULES, weight_decay=DECAY)
        ),
        **torch(
            "torch.optim:AdamW",
            lr=RATE,
            weight_decay=DECAY,
            groups=GROUPS,
            moves=True,
        ),
    )


def memory_rows() -> Iterator[Row]:
    """States and parameters in fewer bits, all of which compute in float32."""
    codecs = {"trace": bfloat16(stochastic=False)}
    yield Row(
        names=("compress_state",),
        options="momentum ½ in bfloat16, to the nearest; float32",
        reference="the trace rounded by NumPy's cast",
        ours=lambda: ours(
            ox.compress_state(optax.sgd(0.125, 0.5), codecs),
            wrapped.COARSE,
            dtype=np.float32,
        ),
        theirs=each(
            wrapped.stored_momentum, grads=wrapped.COARSE, rate=0.125, decay=0.5
        ),
        bound=1e-6,
    )
    none: Any = {"trace": None}
    yield Row(
        names=("compress_state",),
        options="momentum 0.9, no codec; float32",
        reference="`optax.sgd`",
        ours=lambda: ours(
            ox.compress_state(optax.sgd(RATE, 0.9), none), dtype=np.float32
        ),
        theirs=lambda: ours(optax.sgd(RATE, 0.9), dtype=np.float32),
        bound=1e-6,
    )
    rate = 2.0**-10
    yield Row(
        names=("keep_bfloat16_params",),
        options="SGD, Kahan; parameters in bfloat16",
        reference="compensated sums of casts by NumPy",
        ours=lambda: wrapped.in_bfloat16("kahan", wrapped.COARSE, PARAMS, rate=rate),
        theirs=lambda: {
            name: wrapped.kahan(g, PARAMS[name], rate=rate)
            for name, g in wrapped.COARSE.items()
        },
        bound=1e-6,
    )
    yield Row(
        names=("keep_bfloat16_params",),
        options="SGD, at random; mean of 4096 in bfloat16, from step 100 on",
        reference="the exact sum",
        ours=wrapped.mean_of_many,
        theirs=wrapped.exact_mean,
        bound=0.05,
    )

"""The table of parity as data: momentum."""

from collections.abc import Iterator
from typing import Any

import optax
import parity_numpy as paper
from parity_rows import RATE, each, falling, plain, rate_of, rising, torch
from parity_steps import GRADIENTS, PARAMS, STEPS, Path, Row, ours

import optax_extras as ox


def momentum_rows() -> Iterator[Row]:
    """Traces, velocities, look-ahead, QHM, AggMo and SRSGD."""
    for nesterov in (False, True):
        form = "Nesterov" if nesterov else "plain"
        yield Row(
            names=("trace_with_bias_correction",),
            options=f"γ rises, {form}",
            reference="its equation",
            ours=plain(ox.trace_with_bias_correction, rising, nesterov),
            theirs=each(paper.trace, decay=rising, nesterov=nesterov, corrected=True),
        )
        yield Row(
            names=("trace_with_bias_correction",),
            options=f"no correction, {form}",
            reference="`optax.trace`",
            ours=plain(
                ox.trace_with_bias_correction, 0.9, nesterov, bias_correction=False
            ),
            theirs=plain(optax.trace, 0.9, nesterov),
        )
    for nesterov in (False, True):
        form = "Nesterov" if nesterov else "plain"
        yield Row(
            names=("momentum_sgd",),
            options=f"{form}, rate falls and γ rises, both inside the velocity",
            reference="Sutskever et al.'s equations",
            ours=plain(ox.momentum_sgd, falling, rising, nesterov=nesterov),
            theirs=each(
                paper.velocity, rate=falling, momentum=rising, nesterov=nesterov
            ),
        )
        yield Row(
            names=("momentum_sgd",),
            options=f"{form}, rate falls, outside",
            reference="`torch.optim.SGD`",
            ours=plain(
                ox.momentum_sgd,
                falling,
                0.9,
                nesterov=nesterov,
                learning_rate_inside=False,
            ),
            **torch(
                "torch.optim:SGD",
                lr=RATE,
                momentum=0.9,
                nesterov=nesterov,
                varying={"lr": falling},
            ),
        )
    yield Row(
        names=("momentum_sgd",),
        options="corrected",
        reference="`optax.ema` with debiasing, over 1 − γ",
        ours=plain(ox.momentum_sgd, RATE, 0.9, bias_correction=True),
        theirs=plain(optax.chain, optax.ema(0.9), optax.scale(-RATE / (1 - 0.9))),
    )

    def points() -> Path:
        found = {}
        for name, g in GRADIENTS.items():
            found[name], found[f"{name}, ahead"] = paper.look_ahead(
                g, PARAMS[name], rate=falling, momentum=rising
            )
        return found

    def seen(state: Any, params: Any) -> Path:
        ahead = ox.nesterov_lookahead_params(state, params)
        return {f"{name}, ahead": x for name, x in ahead.items()}

    yield Row(
        names=("nesterov_lookahead",),
        options="rate falls and γ rises; steps and points",
        reference="Sutskever et al.'s equations",
        ours=lambda: ours(ox.nesterov_lookahead(falling, rising), seen=seen),
        theirs=points,
    )
    qhm = ("scale_by_quasi_hyperbolic_momentum", "qhm")
    yield Row(
        names=qhm,
        options="β rises, ν falls",
        reference="the paper's equations",
        ours=plain(ox.qhm, falling, rising, falling),
        theirs=rate_of(each(paper.qhm, beta=rising, nu=falling), falling),
    )
    for name in ("qhoptim.pyt:QHM", "pytorch_optimizer:QHM"):
        yield Row(
            names=qhm,
            options="β = 0.999, ν = 0.7",
            reference=f"`{name.replace(':', '.')}`",
            ours=plain(ox.qhm, RATE),
            **torch(name, lr=RATE, momentum=0.999, nu=0.7),
        )
    aggmo = ("scale_by_aggregated_momentum", "aggmo")
    yield Row(
        names=aggmo,
        options="β = 0, 0.9, 0.99, 0.9",
        reference="the paper's equations",
        ours=plain(ox.aggmo, falling, (0.0, 0.9, 0.99, 0.9)),
        theirs=rate_of(each(paper.aggmo, betas=(0.0, 0.9, 0.99, 0.9)), falling),
    )
    yield Row(
        names=aggmo,
        options="β = 0, 0.9, 0.99",
        reference="`pytorch_optimizer.AggMo`",
        ours=plain(ox.aggmo, RATE),
        **torch("pytorch_optimizer:AggMo", lr=RATE),
    )
    yield Row(
        names=("srsgd",),
        options="F = 40",
        reference="the paper's two sequences",
        ours=plain(ox.srsgd, RATE, 40),
        theirs=lambda: {
            name: paper.restarted(
                g, PARAMS[name], rate=RATE, momenta=paper.restarts(40, STEPS)
            )
            for name, g in GRADIENTS.items()
        },
    )

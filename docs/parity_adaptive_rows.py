"""The table of parity as data: adaptive methods."""

from collections.abc import Iterator

import numpy as np
import parity_numpy as paper
from parity_rows import DECAY, RATE, each, falling, plain, rate_of, rising, torch, whole
from parity_steps import Row

import optax_extras as ox


def adaptive_rows() -> Iterator[Row]:
    """AdaSmooth, QHAdam, AdaShift, Adai and diffGrad."""
    smooth = ("scale_by_adasmooth", "adasmooth")
    for scope, over, pooled in (
        ("tree", whole, True),
        ("leaf", each, True),
        ("element", each, False),
    ):
        for debias in ("power", "product"):
            exact = debias == "product"
            yield Row(
                names=smooth,
                options=f"{scope}, {debias}" + (", normalized" if exact else ""),
                reference="the source's equations",
                ours=plain(
                    ox.adasmooth, RATE, scope=scope, debias=debias, normalize=exact
                ),
                theirs=rate_of(
                    over(paper.adasmooth, pooled=pooled, exact=exact, relative=exact)
                ),
            )
    yield Row(
        names=smooth,
        options="b1_min = b1_max, weight decay",
        reference="`torch.optim.AdamW`",
        ours=plain(ox.adasmooth, RATE, 0.9, 0.9, weight_decay=DECAY),
        **torch("torch.optim:AdamW", lr=RATE, weight_decay=DECAY, moves=True),
    )
    qhadam = ("scale_by_qhadam", "qhadam")
    yield Row(
        names=qhadam,
        options="β1 rises, ν1 and ν2 fall",
        reference="the paper's equations, with the weights of varying decays",
        ours=plain(ox.qhadam, RATE, rising, 0.99, falling, falling),
        theirs=rate_of(
            each(paper.qhadam, b1=rising, b2=0.99, nu1=falling, nu2=falling)
        ),
    )
    options = {"b1": 0.995, "b2": 0.999, "nu1": 0.7, "nu2": 0.9}
    yield Row(
        names=qhadam,
        options="ν = 0.7, 0.9; weight decay",
        reference="`qhoptim.pyt.QHAdamW`",
        ours=plain(ox.qhadam, RATE, **options, weight_decay=DECAY),
        **torch(
            "qhoptim.pyt:QHAdamW",
            lr=RATE,
            betas=(0.995, 0.999),
            nus=(0.7, 0.9),
            weight_decay=DECAY,
            moves=True,
        ),
    )
    yield Row(
        names=qhadam,
        options="ν = 0.7, 0.9",
        reference="`pytorch_optimizer.QHAdam`, whose weights are float32",
        ours=plain(ox.qhadam, RATE, **options),
        bound=1e-5,
        **torch(
            "pytorch_optimizer:QHAdam",
            lr=RATE,
            betas=(0.995, 0.999),
            nus=(0.7, 0.9),
        ),
    )
    yield Row(
        names=qhadam,
        options="ν = 1",
        reference="`torch.optim.Adam`",
        ours=plain(ox.qhadam, RATE, 0.9, 0.999, 1.0, 1.0),
        **torch("torch.optim:Adam", lr=RATE),
    )
    shift = ("scale_by_adashift", "adashift")
    for spatial, function, reduce in (
        ("max", np.max, "torch.max"),
        ("mean", np.mean, "torch.mean"),
        ("element", lambda x: x, None),
    ):
        yield Row(
            names=shift,
            options=f"φ = {spatial}",
            reference="the paper's equations",
            ours=plain(ox.adashift, RATE, spatial=spatial),
            theirs=rate_of(each(paper.adashift, reduce=function)),
        )
        yield Row(
            names=shift,
            options=f"φ = {spatial}",
            reference="`pytorch_optimizer.AdaShift`",
            ours=plain(ox.adashift, RATE, spatial=spatial),
            **torch("pytorch_optimizer:AdaShift", lr=RATE, reduce_func=reduce),
        )
    adai = ("scale_by_adai", "adai")
    yield Row(
        names=adai,
        options="weight decay",
        reference="the paper's equations",
        ours=plain(ox.adai, RATE, weight_decay=DECAY),
        theirs=rate_of(whole(paper.adai), RATE, DECAY),
    )
    yield Row(
        names=adai,
        options="gradients whose mean square is above 0.001",
        reference="`pytorch_optimizer.Adai`",
        ours=plain(ox.adai, RATE),
        **torch("pytorch_optimizer:Adai", lr=RATE),
    )
    diff = ("scale_by_diffgrad", "diffgrad")
    yield Row(
        names=diff,
        options="",
        reference="the paper's equations",
        ours=plain(ox.diffgrad, RATE),
        theirs=rate_of(each(paper.diffgrad)),
    )
    yield Row(
        names=diff,
        options="ε = 0",
        reference="`pytorch_optimizer.DiffGrad`, which adds 1e-15 under the root",
        ours=plain(ox.diffgrad, RATE, eps=0.0),
        bound=1e-8,
        **torch("pytorch_optimizer:DiffGrad", lr=RATE, eps=0.0),
    )

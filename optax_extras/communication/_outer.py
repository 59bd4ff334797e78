"""Local updates with the outer optimizers of their papers."""

from __future__ import annotations

from typing import Literal

import optax

from optax_extras._core import checks, stages
from optax_extras.communication._local_updates import local_updates
from optax_extras.compressors import Compressor, top_k
from optax_extras.momentum import trace_with_bias_correction
from optax_extras.typing import AxisName, Scalar, ScalarOrSchedule


def diloco(
    inner: optax.GradientTransformation,
    learning_rate: ScalarOrSchedule = 0.7,
    momentum: ScalarOrSchedule = 0.9,
    every: int = 100,
    *,
    axis_name: AxisName,
    workers: int,
    compressor: Compressor | None = None,
    fragments: int = 1,
) -> optax.GradientTransformationExtraArgs:
    r"""Local updates, averaged every H steps by SGD with Nesterov momentum (DiLoCo).

    `local_updates`, whose docstring has the equations and the calls, with this outer
    optimizer. Use it to train a model in several places with slow links between them;
    with ``fragments`` it is Streaming DiLoCo. Without a compressor, a step takes 8/H
    bytes for each parameter on average, and with ``quantized(4)`` 1.1/H.

    *Differences from the sources*: those of `local_updates`.

    Args:
      inner: trains the parameters of a worker, such as ``optax.adamw(4e-4)``.
      learning_rate: of the outer optimizer, at least 0; a number, a 0-d array or a
        schedule of the number of exchanges.
      momentum: of the outer optimizer, in [0, 1); as ``learning_rate``.
      every: H, at least 1.
      axis_name: the axis of the workers, or a tuple of axes.
      workers: the size of that axis.
      compressor: as for `local_updates`.
      fragments: as for `local_updates`.

    Returns:
      A gradient transformation with the learning rate of ``inner``. Its state is two
      copies of the parameters, the state of ``inner`` on each worker, and with
      ``compressor`` a float32 copy of the compressed leaves on each worker.

    Raises:
      ValueError: an argument is out of its range; at ``init`` and ``update``, as for
        `local_updates`.
      TypeError: an argument has the wrong type.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> from jax.sharding import PartitionSpec as P
      >>> workers = jax.device_count()
      >>> mesh = jax.make_mesh((workers,), ("data",))
      >>> tx = optax_extras.diloco(
      ...     optax.adam(0.01), every=10, axis_name="data", workers=workers
      ... )
      >>> def loss(params, x):
      ...     return jnp.sum((params - x) ** 2)
      >>> def step(params, state, x):
      ...     value, grads = optax_extras.local_value_and_grad(loss, "data")(params, x)
      ...     updates, state = tx.update(grads, state, params)
      ...     return optax_extras.apply_local_updates(params, updates, state), state
      >>> with jax.set_mesh(mesh):
      ...     state = tx.init(jnp.zeros(3))
      ...     params = optax_extras.worker_params(jnp.zeros(3), "data", workers=workers)
      ...     specs = optax_extras.worker_specs((params, state), "data")
      ...     step = jax.jit(
      ...         jax.shard_map(step, in_specs=(*specs, P()), out_specs=specs)
      ...     )
      ...     for _ in range(200):
      ...         params, state = step(params, state, jnp.ones(3))
      >>> bool(jnp.abs(optax_extras.outer_params(state) - 1).max() < 0.2)
      True

    References:
      Douillard et al. 2023, "DiLoCo: Distributed Low-Communication Training of Language
      Models", arXiv 2311.08105
    """
    momentum = checks.decay("momentum", momentum, schedule=True)
    outer = optax.chain(
        trace_with_bias_correction(momentum, nesterov=True, bias_correction=False),
        stages.scale_by_learning_rate(learning_rate),
    )
    return local_updates(
        inner,
        outer,
        every,
        axis_name=axis_name,
        workers=workers,
        compressor=compressor,
        fragments=fragments,
    )


def sparse_loco(
    inner: optax.GradientTransformation,
    learning_rate: ScalarOrSchedule = 1.0,
    every: int = 30,
    decay: Scalar = 0.95,
    *,
    axis_name: AxisName,
    workers: int,
    density: float = 64 / 4096,
    chunk: int = 4096,
    average: Literal["all", "senders"] = "all",
    fragments: int = 1,
) -> optax.GradientTransformationExtraArgs:
    r"""Local updates that send a 64th of what was learned, in 2 bits (SparseLoCo).

    `local_updates`, whose docstring has the equations and the calls, with
    ``top_k(density, chunk=chunk, bits=2)``, a residual that decays, and plain SGD as
    the outer optimizer. Use it over links on which `diloco` still sends too much: an
    entry takes 14 bits, and a worker sends less than 0.03/H bytes for each parameter in
    a step on average. It receives the messages of all others.

    *Differences from the source*: 2 bits are a sign and one of two magnitudes of the
    chunk, the means of the entries that get them; those of the reference have fixed
    thresholds, and a larger error. The reference divides by the workers that have sent
    an entry, as ``average="senders"`` does, while its equation, and the default here,
    divide by all. Leaves of fewer than 1024 elements are averaged densely.

    Args:
      inner: trains the parameters of a worker, such as ``optax.adamw(4e-4)``.
      learning_rate: of the outer optimizer, at least 0; a number, a 0-d array or a
        schedule of the number of exchanges.
      every: H, at least 1.
      decay: β in [0, 1], the share of the residual that the next exchange adds.
      axis_name: the axis of the workers, or a tuple of axes.
      workers: the size of that axis.
      density: the share of the elements that is sent, in (0, 1].
      chunk: length of the chunks from which it is taken, at least 1.
      average: ``"all"``, or ``"senders"``.
      fragments: as for `local_updates`.

    Returns:
      A gradient transformation with the learning rate of ``inner``. Its state is a
      copy of the parameters, and on each worker the state of ``inner`` and a float32
      copy of the compressed leaves.

    Raises:
      ValueError: an argument is out of its range; at ``init`` and ``update``, as for
        `local_updates`.
      TypeError: an argument has the wrong type.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> from jax.sharding import PartitionSpec as P
      >>> workers = jax.device_count()
      >>> mesh = jax.make_mesh((workers,), ("data",))
      >>> tx = optax_extras.sparse_loco(
      ...     optax.adam(0.01), every=10, density=0.1, axis_name="data", workers=workers
      ... )
      >>> def loss(params, x):
      ...     return jnp.sum((params - x) ** 2)
      >>> def step(params, state, x):
      ...     value, grads = optax_extras.local_value_and_grad(loss, "data")(params, x)
      ...     updates, state = tx.update(grads, state, params)
      ...     return optax_extras.apply_local_updates(params, updates, state), state
      >>> first = jnp.zeros(2000)
      >>> with jax.set_mesh(mesh):
      ...     state = tx.init(first)
      ...     params = optax_extras.worker_params(first, "data", workers=workers)
      ...     specs = optax_extras.worker_specs((params, state), "data")
      ...     step = jax.jit(
      ...         jax.shard_map(step, in_specs=(*specs, P()), out_specs=specs)
      ...     )
      ...     for _ in range(400):
      ...         params, state = step(params, state, jnp.ones(2000))
      >>> bool(jnp.abs(optax_extras.outer_params(state) - 1).mean() < 0.2)
      True

    References:
      Sarfi et al. 2025, "Communication Efficient LLM Pre-training with SparseLoCo",
      arXiv 2508.15706
    """
    return local_updates(
        inner,
        stages.scale_by_learning_rate(learning_rate),
        every,
        axis_name=axis_name,
        workers=workers,
        compressor=top_k(density, chunk=chunk, bits=2),
        fragments=fragments,
        decay=decay,
        average=average,
    )


def fedavg(
    inner: optax.GradientTransformation,
    every: int = 10,
    learning_rate: ScalarOrSchedule = 1.0,
    *,
    axis_name: AxisName,
    workers: int,
    compressor: Compressor | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Local updates, after which all workers adopt their mean (FedAvg, LocalSGD).

    `local_updates`, whose docstring has the equations and the calls, with plain SGD as
    the outer optimizer. Use it for federated training, where each worker, or client,
    has data of its own: ``update(..., weight=n)`` with the number of examples of a step
    weights the clients by their examples, and a weight of 0 leaves a client out. With
    ``optax.sgd`` inside, it is LocalSGD.

    *Differences from the source*: a client that is left out adopts the new reference
    too, since its device is part of the exchange, with a weight of 0.

    Args:
      inner: trains the parameters of a worker, such as ``optax.sgd(0.1)``.
      every: H, steps of a round, at least 1.
      learning_rate: of the outer optimizer, at least 0; 1 for the mean of the
        parameters. A number, a 0-d array or a schedule of the number of rounds.
      axis_name: the axis of the workers, or a tuple of axes.
      workers: the size of that axis.
      compressor: as for `local_updates`.

    Returns:
      A gradient transformation with the learning rate of ``inner``. Its state is a copy
      of the parameters, the state of ``inner`` on each worker, and with ``compressor``
      a float32 copy of the compressed leaves on each worker.

    Raises:
      ValueError: an argument is out of its range; at ``init`` and ``update``, as for
        `local_updates`.
      TypeError: an argument has the wrong type.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> from jax.sharding import PartitionSpec as P
      >>> workers = jax.device_count()
      >>> mesh = jax.make_mesh((workers,), ("data",))
      >>> tx = optax_extras.fedavg(
      ...     optax.sgd(0.1), every=5, axis_name="data", workers=workers
      ... )
      >>> def loss(params, examples, x):
      ...     return jnp.sum((params - x) ** 2)
      >>> def step(params, state, examples, x):
      ...     grad = optax_extras.local_value_and_grad(loss, "data")
      ...     grads = grad(params, examples, x)[1]
      ...     updates, state = tx.update(grads, state, params, weight=examples)
      ...     return optax_extras.apply_local_updates(params, updates, state), state
      >>> with jax.set_mesh(mesh):
      ...     state = tx.init(jnp.zeros(3))
      ...     params = optax_extras.worker_params(jnp.zeros(3), "data", workers=workers)
      ...     specs = optax_extras.worker_specs((params, state), "data")
      ...     step = jax.jit(
      ...         jax.shard_map(
      ...             step, in_specs=(*specs, P("data"), P("data")), out_specs=specs
      ...         )
      ...     )
      ...     examples = jax.device_put(jnp.arange(1.0, workers + 1), P("data"))
      ...     for _ in range(50):
      ...         params, state = step(params, state, examples, examples)
      >>> goal = float((examples**2).sum() / examples.sum())  # the weighted mean
      >>> bool(jnp.abs(optax_extras.outer_params(state) - goal).max() < 0.01)
      True

    References:
      McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from
      Decentralized Data", arXiv 1602.05629
    """
    return local_updates(
        inner,
        stages.scale_by_learning_rate(learning_rate),
        every,
        axis_name=axis_name,
        workers=workers,
        compressor=compressor,
    )

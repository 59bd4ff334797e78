"""PowerSGD (Vogels et al. 2019, 1905.13727)."""

from __future__ import annotations

import optax

from optax_extras._core import checks, stages
from optax_extras.communication._mean import compressed_mean
from optax_extras.compressors import Dense, Staged, low_rank
from optax_extras.momentum import trace_with_bias_correction
from optax_extras.typing import AxisName, KeyLike, ScalarOrSchedule


def power_sgd(
    learning_rate: ScalarOrSchedule,
    rank: int = 2,
    momentum: ScalarOrSchedule = 0.9,
    *,
    axis_name: AxisName,
    workers: int,
    key: KeyLike = 0,
    start_step: int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""SGD with momentum on means of low rank (PowerSGD).

    A chain of ``compressed_mean(low_rank(rank))``, momentum and the learning rate. Use
    it for data-parallel training of large matrices over slow links: a matrix of a × b
    takes 4 r (a + b) bytes a step, r = ``rank``, whatever the number of workers.
    Vectors and small leaves are averaged densely.

    Call ``init`` outside of `jax.shard_map`, and ``update`` inside, on local gradients,
    as for `compressed_mean`, which also has the equations of error feedback and the
    ``weight`` of a worker; those of the mean are those of
    `optax_extras.compressors.low_rank`.

    *Differences from the source*: P is made orthonormal by a QR decomposition, which is
    finite where all gradients are zero, in place of a Gram-Schmidt process.

    Args:
      learning_rate: at least 0; a number, a 0-d array or a schedule.
      rank: r, at least 1.
      momentum: in [0, 1); a number, a 0-d array or a schedule.
      axis_name: the axis of the workers, or a tuple of axes.
      workers: the size of that axis.
      key: an int, a key from `jax.random.key`, or the uint32 words of one, for the
        first right factors.
      start_step: step from which on means are of low rank; those before are dense.

    Returns:
      A gradient transformation that contains the learning rate. Its state is a copy of
      the parameters for the momentum, a float32 copy of the compressed leaves on each
      worker, and their right factors.

    Raises:
      ValueError: an argument is out of its range; at ``init`` and ``update``, as for
        `compressed_mean`.
      TypeError: an argument has the wrong type.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> from jax.sharding import PartitionSpec as P
      >>> workers = jax.device_count()
      >>> mesh = jax.make_mesh((workers,), ("data",))
      >>> tx = optax_extras.power_sgd(0.05, axis_name="data", workers=workers)
      >>> def loss(params, x):
      ...     return jnp.mean((params - x) ** 2) * params.size / 2
      >>> def step(params, state, x):
      ...     value, grads = optax_extras.local_value_and_grad(loss, "data")(params, x)
      ...     updates, state = tx.update(grads, state, params)
      ...     return optax.apply_updates(params, updates), state
      >>> params = jnp.zeros((40, 50))
      >>> with jax.set_mesh(mesh):
      ...     state = tx.init(params)
      ...     specs = optax_extras.worker_specs(state, "data")
      ...     step = jax.jit(
      ...         jax.shard_map(
      ...             step, in_specs=(P(), specs, P()), out_specs=(P(), specs)
      ...         )
      ...     )
      ...     for _ in range(150):
      ...         params, state = step(params, state, jnp.ones((40, 50)))
      >>> bool(jnp.abs(params - 1).max() < 0.1)
      True

    References:
      Vogels et al. 2019, "PowerSGD: Practical Low-Rank Gradient Compression for
      Distributed Optimization", arXiv 1905.13727
    """
    momentum = checks.decay("momentum", momentum, schedule=True)
    compressor = low_rank(rank, key=key)
    if checks.nonnegative_integer("start_step", start_step):
        compressor = Staged((0, start_step), (Dense(), compressor))
    return optax.chain(
        compressed_mean(compressor, axis_name, workers=workers),
        trace_with_bias_correction(momentum, bias_correction=False),
        stages.scale_by_learning_rate(learning_rate),
    )

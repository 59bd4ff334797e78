"""DeMo (Peng et al. 2024, 2411.19870)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_extras._core import checks, leaves, scalars
from optax_extras._core.dtypes import compute_dtype
from optax_extras.communication._mean import CompressedMeanState, compressed_mean
from optax_extras.compressors import dct_top_k
from optax_extras.typing import AxisName, Scalar, ScalarOrSchedule


def demo(
    learning_rate: ScalarOrSchedule,
    *,
    decay: Scalar = 0.999,
    k: int = 32,
    chunk: int = 64,
    weight_decay: ScalarOrSchedule = 0.0,
    axis_name: AxisName,
    workers: int,
) -> optax.GradientTransformationExtraArgs:
    r"""Signs of a momentum whose largest cosine coefficients are sent (DeMo).

    Use it for data-parallel training over slow links, with the learning rates and the
    weight decay of a sign method such as Lion. Each worker has a momentum of its own,
    and takes out of it what it sends; no other momentum should follow. With few workers
    or fast links, a dense mean may take less time.

    With the gradient g of worker i, β = ``decay``, λ = ``weight_decay``, the
    orthonormal cosine transform D of blocks, and the k largest coefficients S of each:

    .. math::

        \delta_i \leftarrow \beta \delta_i + \eta g, \qquad
        q_i = D(\delta_i)[S_i], \qquad
        \delta_i \leftarrow \delta_i - D^{-1}(q_i), \qquad
        \theta \leftarrow \theta - \eta \left(
        \operatorname{sign} D^{-1}(\overline{q}) + \lambda \theta \right)

    where each coefficient of :math:`\overline{q}` is the mean over the workers that
    sent it. Blocks are those of `optax_extras.compressors.dct_top_k`: with the
    defaults, a worker sends 0.027 bytes for each element of a large matrix, and half
    of the coefficients of a vector. A leaf whose blocks have at most k elements is
    sent as it is, and leaves no momentum.

    Call ``init`` outside of `jax.shard_map`, and ``update`` inside, on local gradients,
    as for `compressed_mean`; what is said there of specs, of gradients that are not
    finite, and of ``weight`` holds here too: in a step that is skipped nothing moves,
    not even by weight decay.

    *Differences from the source*: the reference cuts each axis by its largest divisor
    up to the chunk, which is 1 for large primes; here the last block is filled with
    zeros. It sends indices of 8 bytes, and values in the dtype of the parameters; here
    they are of 12 bits and in bfloat16, and what that rounds away stays in δ. δ is
    float32.

    Args:
      learning_rate: η, at least 0; a number, a 0-d array or a schedule.
      decay: β in [0, 1); a number or a 0-d array.
      k: coefficients that are sent of each block, at least 1.
      chunk: length of the blocks, at least 1.
      weight_decay: λ, at least 0; a number, a 0-d array or a schedule. Unless it is 0,
        ``update`` needs ``params``.
      axis_name: the axis of the workers, or a tuple of axes.
      workers: the size of that axis.

    Returns:
      A gradient transformation that contains the learning rate. Its state is that of
      `compressed_mean`: δ, a float32 copy of the parameters on each worker.

    Raises:
      ValueError: an argument is out of its range; at ``init`` and ``update``, as for
        `compressed_mean`; at ``update``, ``params`` are missing.
      TypeError: an argument has the wrong type.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> from jax.sharding import PartitionSpec as P
      >>> workers = jax.device_count()
      >>> mesh = jax.make_mesh((workers,), ("data",))
      >>> rate = optax.linear_schedule(0.05, 0.0, 150)
      >>> tx = optax_extras.demo(rate, decay=0.9, axis_name="data", workers=workers)
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
      Peng et al. 2024, "DeMo: Decoupled Momentum Optimization", arXiv 2411.19870
    """
    rate = checks.nonnegative("learning_rate", learning_rate, schedule=True)
    weight = checks.nonnegative("weight_decay", weight_decay, schedule=True)
    mean = compressed_mean(
        dct_top_k(k, chunk=chunk),
        axis_name,
        workers=workers,
        decay=checks.decay("decay", decay),
        average="senders",
        min_size=0,  # what is averaged densely would have no momentum
    )

    def update(
        updates: optax.Updates,
        state: CompressedMeanState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, CompressedMeanState]:
        if params is None and not checks.is_zero(weight):
            raise ValueError("`params` must be given to `update` with `weight_decay`")
        checks.check_inexact("updates", updates)
        eta, lambda_ = (
            scalars.evaluate(value, state.count, jnp.float32)
            for value in (rate, weight)
        )
        means, after = mean.update(
            # In float32, as products with a small rate are 0 in float16.
            leaves.map_gradients(lambda g: leaves.scaled(_wide(g), eta), updates),
            state,
            params,
            **extra_args,
        )
        finite = after.skipped == state.skipped

        def moved(mean: jax.Array, g: Any, p: Any = None) -> jax.Array:
            step = leaves.by_part(jnp.sign, mean)
            if p is not None:
                step = leaves.add_scaled(step, (lambda_, p))
            step = jnp.where(finite, leaves.scaled(step, -eta), 0)
            return step.astype(jnp.result_type(g))

        decayed = () if checks.is_zero(weight) else (params,)
        return leaves.map_gradients(moved, means, updates, *decayed), after

    return optax.GradientTransformationExtraArgs(mean.init, update)


def _wide(x: Any) -> jax.Array:
    """A leaf in float32 or wider."""
    return jnp.asarray(x).astype(compute_dtype(jnp.result_type(x)))

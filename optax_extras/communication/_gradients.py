"""Gradients of each worker, before any mean."""

from __future__ import annotations

from typing import Any

import jax

from optax_extras._core.axes import names_of, vary_over
from optax_extras._core.placement import PerWorker
from optax_extras.communication._parameters import own_params
from optax_extras.typing import AxisName, Loss


def local_value_and_grad(
    loss: Loss, axis_name: AxisName, *, has_aux: bool = False
) -> Loss:
    """`jax.value_and_grad` of a worker's own loss, inside `jax.shard_map`.

    With respect to parameters that are the same on all workers, `jax.grad` gives the
    sum over the workers. Here the parameters are made to vary first, without
    communication, so that the gradients stay local.

    Args:
      loss: maps parameters and more arguments to this worker's scalar loss, which must
        not be averaged over the axis.
      axis_name: the axis of the workers, or a tuple of axes.
      has_aux: whether the loss returns a pair of the scalar and something else.

    Returns:
      A function like `jax.value_and_grad`'s, for the first argument. It takes the
      parameters of `worker_params` too: the loss gets this worker's own, and the
      gradients have the workers' axis.

    Raises:
      NameError: when the function is called where the axis is not bound.

    Examples:
      >>> import jax, jax.numpy as jnp, optax_extras
      >>> from jax.sharding import PartitionSpec as P
      >>> mesh = jax.make_mesh((jax.device_count(),), ("data",))
      >>> def gradient(w, x):
      ...     grad = optax_extras.local_value_and_grad(lambda w, x: w * x.sum(), "data")
      ...     return grad(w, x)[1][None]
      >>> with jax.set_mesh(mesh):
      ...     gradients = jax.shard_map(
      ...         gradient, in_specs=(P(), P("data")), out_specs=P("data")
      ...     )(jnp.float32(1), jax.device_put(jnp.arange(8.0), P("data")))
      >>> float(gradients.sum())
      28.0
    """

    def local(params: Any, *args: Any, **kwargs: Any) -> Any:
        names = names_of(axis_name)
        params = jax.tree.map(lambda x: vary_over(x, names), params)

        def own_loss(params: Any, *args: Any, **kwargs: Any) -> Any:
            own = own_params(params) if isinstance(params, PerWorker) else params
            return loss(own, *args, **kwargs)

        return jax.value_and_grad(own_loss, has_aux=has_aux)(params, *args, **kwargs)

    return local

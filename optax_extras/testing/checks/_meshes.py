"""Sharded parameters and the mesh that they lie on."""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from optax_extras.testing._registry import NotApplicableError
from optax_extras.testing._subject import random_like


def plain() -> dict[str, jax.Array]:
    """Parameters whose shapes divide by the devices, and are no other array's."""
    n = _devices()
    shapes = {"w": jnp.zeros((2 * n, 160)), "b": jnp.zeros(4 * n)}
    return random_like(shapes, 0)  # type: ignore[no-any-return]


def _devices() -> int:
    n = min(jax.device_count(), 8)
    if n < 2:
        raise NotApplicableError(
            "there is one device; set jax_num_cpu_devices to 8 before JAX starts"
        )
    return n


def shardings(kind: AxisType) -> dict[str, NamedSharding]:
    """Both leaves along their first axis."""
    mesh = jax.make_mesh(
        (_devices(),), ("x",), axis_types=(kind,), devices=jax.devices()[: _devices()]
    )
    axis = PartitionSpec("x")
    return {name: NamedSharding(mesh, axis) for name in ("w", "b")}

"""Names of mapped axes, and what varies over them."""

from collections.abc import Iterable
from typing import Any

import jax
from jax import lax

from optax_extras.typing import AxisName


def names_of(axis_name: AxisName | None) -> tuple[Any, ...]:
    """An axis name, several of them, or none, as a tuple."""
    if axis_name is None:
        return ()
    return axis_name if isinstance(axis_name, tuple) else (axis_name,)


def varying(x: Any) -> frozenset[Any]:
    """The mapped axes that an array varies over; none with ``check_vma=False``."""
    kind = getattr(jax.typeof(x), "manual_axis_type", None)  # from JAX 0.10.1 on
    found = jax.typeof(x).vma if kind is None else kind.varying
    return frozenset(found)


def may_vary(x: Any) -> frozenset[Any]:
    """The mapped axes that an array varies over; all of them with ``check_vma=False``.

    Nothing is known then.
    """
    names = frozenset(jax.sharding.get_abstract_mesh().manual_axes)
    is_known = all(name in varying(lax.axis_index(name)) for name in names)
    return varying(x) if is_known else names


def vary_over(x: jax.Array, names: Iterable[Any]) -> jax.Array:
    """The array, made to vary over axes, which takes no communication."""
    missing = tuple(name for name in names if name not in varying(x))
    return lax.pcast(x, missing, to="varying") if missing else x


def is_bound(axis_name: AxisName) -> bool:
    """Whether the axis is one of the surrounding `jax.shard_map`."""
    try:
        lax.axis_size(axis_name)
    except NameError:
        return False
    return True

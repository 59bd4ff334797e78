"""Runs a function and stores some of its results as soon as each is computed.

What the function computes from a result afterwards, it computes from what was stored.
XLA:CPU then needs no copy of the old state: an update made of the new state before it
was rounded would be made from the old state, which the new one is written over.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

from optax_extras._core.opaque import barrier

# Operations on single elements, and changes of shape. Others, such as quotients, XLA
# does not compute twice: what they return is written to memory if it is used twice.
# fmt: off
_CHEAP = frozenset({
    "abs", "add", "add_any", "and", "bitcast_convert_type", "broadcast_in_dim", "ceil",
    "clamp", "complex", "conj", "convert_element_type", "copy", "eq", "floor", "ge",
    "gt", "imag", "integer_pow", "is_finite", "le", "lt", "max", "min", "mul", "ne",
    "neg", "nextafter", "not", "or", "real", "reduce_precision", "reshape", "round",
    "select_n", "shift_left", "shift_right_arithmetic", "shift_right_logical", "sign",
    "square", "squeeze", "sub", "xor",
})
# fmt: on
# So many in a row, at most, are computed again.
_MOST = 32


class Value:
    """A value, and the same computed again.

    XLA does not merge the two: each may be fused into uses of its own. Operations other
    than cheap ones are not repeated, their results are read again.
    """

    def __init__(
        self, value: Any, again: Callable[[], Any] | None = None, depth: int = 0
    ) -> None:
        """By default, `again` reads the value behind a barrier."""
        self.value = value
        self.depth = depth  # operations that `again` repeats, one behind another
        self._again = again

    @functools.cached_property
    def again(self) -> Any:
        """The same value, from another computation."""
        return barrier(self.value) if self._again is None else self._again()


Store = Callable[[Value], Value]


def run(
    traced: Any, arguments: Sequence[Value], stores: Mapping[int, Store]
) -> list[Value]:
    """The results of a function.

    Args:
      traced: the function, from `jax.make_jaxpr`.
      arguments: those of the function.
      stores: for positions of results, what stores one and returns it as stored.
    """
    computed = {x for equation in traced.jaxpr.eqns for x in equation.outvars}
    by_variable: dict[Var, list[Store]] = {}
    others = []
    for position, store in stores.items():
        result = traced.jaxpr.outvars[position]
        if isinstance(result, Var) and result in computed:
            by_variable.setdefault(result, []).append(store)
        else:
            others.append(position)
    constants = [Value(x) for x in traced.consts]
    results = _run(traced.jaxpr, [*constants, *arguments], by_variable)
    for position in others:  # arguments and constants
        results[position] = stores[position](results[position])
    return results


def _run(
    jaxpr: Jaxpr, given: Sequence[Value], stores: Mapping[Var, Sequence[Store]]
) -> list[Value]:
    variables = [*jaxpr.constvars, *jaxpr.invars]
    known: dict[Var, Value] = dict(zip(variables, given, strict=True))

    def read(atom: Any) -> Value:
        if isinstance(atom, Literal):
            return Value(jnp.asarray(atom.val, atom.aval.dtype))  # type: ignore[attr-defined]
        return known[atom]

    for equation in jaxpr.eqns:
        own = {x: stores[x] for x in equation.outvars if x in stores}
        inputs = [read(atom) for atom in equation.invars]
        if inner := _inlined(equation):
            outputs = _inside(inner, inputs, equation.outvars, own)
        else:
            outputs = _results(equation, inputs)
        for variable, output in zip(equation.outvars, outputs, strict=True):
            stored = [store(output) for store in own.get(variable, ())]
            known[variable] = stored[0] if stored else output
    return [read(atom) for atom in jaxpr.outvars]


def _inside(
    inner: Any,
    inputs: Sequence[Value],
    outputs: Sequence[Var],
    stores: dict[Var, Sequence[Store]],
) -> list[Value]:
    """The results of a function inside of a `jax.jit`, stored where they are computed.

    What is left in `stores` is yet to be stored.
    """
    computed = {x for equation in inner.jaxpr.eqns for x in equation.outvars}
    within: dict[Var, list[Store]] = {}
    for result, output in zip(inner.jaxpr.outvars, outputs, strict=True):
        if isinstance(result, Var) and result in computed and output in stores:
            within.setdefault(result, []).extend(stores.pop(output))
    constants = [Value(x) for x in inner.consts]
    return _run(inner.jaxpr, [*constants, *inputs], within)


def _results(equation: JaxprEqn, inputs: Sequence[Value]) -> list[Value]:
    """The results of an operation."""
    results = _applied(equation, [x.value for x in inputs])
    depth = 1 + max((x.depth for x in inputs), default=0)
    is_cheap = equation.primitive.name in _CHEAP and depth <= _MOST
    # Scalars, such as sums of squares over all leaves, have nothing to fuse with.
    if not is_cheap or not jnp.ndim(results[0]):
        return [Value(x) for x in results]

    def again() -> Any:
        return _applied(equation, [x.again for x in inputs])[0]

    return [Value(results[0], again, depth)]


def _inlined(equation: JaxprEqn) -> Any:
    """The function of a `jax.jit` that says nothing about shardings, or None."""
    if equation.primitive.name not in ("jit", "pjit"):
        return None
    places = (*equation.params["in_shardings"], *equation.params["out_shardings"])
    if any(isinstance(place, jax.sharding.Sharding) for place in places):
        return None
    return equation.params["jaxpr"]


def _applied(equation: JaxprEqn, values: Sequence[Any]) -> list[Any]:
    parameters = equation.primitive.get_bind_params(equation.params)
    with equation.ctx.manager:
        results = equation.primitive.bind(*values, **parameters)
    return list(results) if equation.primitive.multiple_results else [results]

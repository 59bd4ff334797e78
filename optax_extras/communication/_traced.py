"""A traced program, and which of its values follow from the number of the step."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

# Larger arrays, one for each step, might not fit, and hardly decide on a branch.
_LARGEST = 1024
_CALLS = (
    *("jit", "closed_call", "core_call", "shard_map"),
    *("checkpoint", "remat2", "custom_jvp_call", "custom_vjp_call"),
)


class Known:
    """A value that is known, and computed when it is asked for.

    Most never are: of thousands of equations, few decide on a branch.
    """

    def __init__(self, compute: Callable[..., Any], *inputs: "Known") -> None:
        """A value that is a function of others.

        Args:
          compute: from the values of the inputs to an array and the number of its axis
            of the steps, which is None for an array that is the same at all steps.
          *inputs: the others.
        """
        self._compute, self._inputs = compute, inputs
        self._value: Any = None

    def value(self) -> Any:
        """The array, and the number of its axis of the steps."""
        waiting = [self]  # and no recursion, which may be too deep for Python
        while waiting:
            last = waiting[-1]
            missing = [one for one in last._inputs if one._value is None]
            waiting.extend(missing)
            if not missing:
                waiting.pop()
                if last._value is None:
                    found = [one._value for one in last._inputs]
                    with jax.ensure_compile_time_eval():  # also inside of a `jax.jit`
                        last._value = last._compute(*found)
        return self._value


class Equation(NamedTuple):
    """An equation of a program.

    Attributes:
      equation: as JAX has it.
      branch: what is known of the number of the branch that a `cond` runs.
      parts: the programs inside of it, such as the branches of a `cond`.
    """

    equation: Any
    branch: Known | None
    parts: list["Program"]


class Program(NamedTuple):
    """A traced program.

    Attributes:
      equations: all of them, in order.
      outputs: what is known of its results.
    """

    equations: list[Equation]
    outputs: list[Known | None]


def steps_of(numbers: Sequence[int], dtype: Any) -> Known:
    """A count of steps, at steps of these numbers."""
    last = np.iinfo(dtype).max  # where a count stays
    counts = np.minimum(np.asarray(numbers, np.int64), last).astype(dtype)
    return Known(lambda: (counts, 0))


def program_of(closed: Any, inputs: Sequence[Known | None]) -> Program:
    """A program, and what follows from what is known of its inputs.

    Args:
      closed: the program, as of `jax.make_jaxpr` or inside of an equation.
      inputs: what is known of its first inputs; of the others, nothing is.
    """
    jaxpr = getattr(closed, "jaxpr", closed)
    constants = [_constant(x) for x in getattr(closed, "consts", ())]
    known: dict[Any, Known | None] = dict(zip(jaxpr.constvars, constants, strict=True))
    known.update(zip(jaxpr.invars, inputs, strict=False))

    def of(variable: Any) -> Known | None:
        if isinstance(variable, Literal):
            kind: Any = variable.aval
            return _constant(variable.val, kind.dtype)
        return known.get(variable)

    equations = []
    for equation in jaxpr.eqns:
        kind, given = equation.primitive.name, [of(v) for v in equation.invars]
        parts = [program_of(*part) for part in _inside(equation, given)]
        calls = kind in _CALLS and parts
        outputs = parts[0].outputs if calls else _results(equation, given)
        known.update(zip(equation.outvars, outputs, strict=True))
        branch = given[0] if kind == "cond" else None
        equations.append(Equation(equation, branch, parts))
    return Program(equations, [of(v) for v in jaxpr.outvars])


def _constant(value: Any, dtype: Any = None) -> Known:
    return Known(lambda: (jnp.asarray(value, dtype), None))


def _inside(equation: Any, given: list[Known | None]) -> Iterator[tuple[Any, Any]]:
    """The programs inside of an equation, and what is known of their inputs."""
    inputs: list[Known | None] = []  # in a loop, which may change them
    if equation.primitive.name in _CALLS:
        inputs = given
    elif equation.primitive.name == "cond":
        inputs = given[1:]
    for value in equation.params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if hasattr(getattr(part, "jaxpr", part), "eqns"):
                yield part, inputs


def _results(equation: Any, given: list[Known | None]) -> list[Known | None]:
    """What is known of the results of an equation."""
    small = all(math.prod(v.aval.shape) <= _LARGEST for v in equation.outvars)
    inputs = [known for known in given if known is not None]
    # Collectives, and what contains them, have the effect of naming an axis.
    if equation.effects or not small or len(inputs) < len(given):
        return [None] * len(equation.outvars)

    def compute(*values: tuple[Any, int | None]) -> tuple[list[Any], int | None]:
        parameters = dict(equation.params)
        if "sharding" in parameters:  # along axes that are bound in the program
            parameters["sharding"] = None
        bind = partial(equation.primitive.bind, **parameters)
        axes = tuple(axis for _, axis in values)
        if 0 in axes:
            bind = jax.vmap(bind, axes)
        found = bind(*(array for array, _ in values))
        several = equation.primitive.multiple_results
        return found if several else [found], 0 if 0 in axes else None

    values = Known(compute, *inputs)
    return [
        Known(lambda found, i=i: (found[0][i], found[1]), values)
        for i in range(len(equation.outvars))
    ]

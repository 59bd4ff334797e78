"""What a rule says about the leaves that it is for, and the checks of its numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_extras._core import checks
from optax_extras.typing import Scalar, ScalarOrSchedule

FOREVER = 2**31 - 1  # where counts end, as an int32


class Rule(NamedTuple):
    """How `with_rules` treats the leaves of a pattern.

    Factors are numbers, arrays that broadcast to each leaf, or schedules of the count.
    Being a named tuple, a rule is a pytree, and may be an argument of a compiled step.

    Attributes:
      lr_multiplier: factor of the learning rate, at least 0.
      weight_decay: in place of the weight decay of `with_rules`, at least 0; None for
        that one.
      frozen_until: the count, that is the number of earlier updates, from which on the
        leaf is trained; an int, an integer array that broadcasts to each leaf, or
        `math.inf` for never.
    """

    lr_multiplier: ScalarOrSchedule = 1.0
    weight_decay: ScalarOrSchedule | None = None
    frozen_until: Scalar = 0


# Patterns and rules, as users write them.
Rules = Mapping[str, Rule] | Iterable[tuple[str, Rule]]


class ByPath:
    """A multiplier that follows from the place of a leaf in the tree."""

    def check_pattern(self, pattern: str, groups: int) -> None:
        """Raises unless the pattern has the groups that are needed."""
        raise NotImplementedError

    def multiplier(
        self, path: str, found: str | None, depths: list[int], shape: tuple[int, ...]
    ) -> Any:
        """The number or the array of a leaf.

        Args:
          path: of the leaf.
          found: what the pattern's group matched in it.
          depths: what it matched in all leaves of the pattern, as sorted ints.
          shape: of the leaf.
        """
        raise NotImplementedError


def pairs_of(rules: Any) -> list[tuple[str, Rule]]:
    """Patterns and checked rules, in the order in which they are tried.

    Raises:
      TypeError: they are neither a mapping nor pairs, or a value has the wrong type.
      ValueError: a number is out of its range, or a pattern is there twice.
    """
    if isinstance(rules, optax.GradientTransformation):
        raise TypeError(
            "`rules` must be rules, or a transformation as `with_rules` returns it"
            " (which `optax.chain` and other wrappers hide); got another transformation"
        )
    wanted = "a mapping from patterns to `Rule`, or pairs of a pattern and a `Rule`"
    try:
        entries: Any = list(rules.items() if isinstance(rules, Mapping) else rules)
    except TypeError:
        raise TypeError(f"`rules` must be {wanted}; got {rules!r}") from None
    pairs: list[tuple[str, Rule]] = []
    for entry in entries:
        # A rule is a tuple too, and a string of two letters has two parts.
        is_pair = isinstance(entry, (tuple, list)) and not isinstance(entry, Rule)
        if not (is_pair and len(entry) == 2 and isinstance(entry[1], Rule)):
            raise TypeError(f"`rules` must be {wanted}; got {entry!r} among them")
        pattern, rule = entry
        if not isinstance(pattern, str):
            raise TypeError(f"`rules` must be {wanted}; got the pattern {pattern!r}")
        if any(pattern == earlier for earlier, _ in pairs):
            raise ValueError(
                f"`rules` must have each pattern once, got {pattern!r} twice"
            )
        pairs.append((pattern, _checked(pattern, rule)))
    return pairs


def _checked(pattern: Any, rule: Rule) -> Rule:
    decay = rule.weight_decay
    try:
        return Rule(
            lr_multiplier=_factor("lr_multiplier", rule.lr_multiplier),
            weight_decay=None if decay is None else _factor("weight_decay", decay),
            frozen_until=_steps("frozen_until", rule.frozen_until),
        )
    except (TypeError, ValueError) as error:
        field, _, rest = str(error).removeprefix("`").partition("` ")
        message = f"`{field}` of the rule {pattern!r} {rest}"
        raise type(error)(message) from None


def _factor(name: str, value: Any) -> Any:
    """Checks a number, the numbers of an array, or nothing of a schedule."""
    if isinstance(value, ByPath):
        return value
    if not np.ndim(value) or not isinstance(value, (np.ndarray, jax.Array)):
        return checks.nonnegative(name, value, schedule=True)
    _check_kind(name, value, "a real number or an array of them", jnp.floating)
    if isinstance(value, np.ndarray):
        wrong = value[~(np.isfinite(value) & (value >= 0))]
        if wrong.size:
            raise ValueError(f"`{name}` must be finite and >= 0, got {wrong[0]}")
        return value.copy()  # the caller may change the array
    return value


def _steps(name: str, value: Any) -> Any:
    """Checks a count, or the counts of an array; an int is at most `FOREVER`."""
    wanted = "an integer >= 0, an array of them or `math.inf`"
    if isinstance(value, (np.ndarray, jax.Array)):
        _check_kind(name, value, wanted)
        if isinstance(value, jax.Array):
            return value
        if value.size and value.min() < 0:
            raise ValueError(f"`{name}` must be >= 0, got {value.min()}")
        counts = np.minimum(value.astype(np.int64), FOREVER).astype(np.int32)
        return counts if counts.ndim else int(counts)
    if isinstance(value, (float, np.floating)) and value == math.inf:
        return FOREVER
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"`{name}` must be {wanted}, got {value!r}")
    if value < 0:
        raise ValueError(f"`{name}` must be >= 0, got {value}")
    return min(int(value), FOREVER)


def _check_kind(name: str, value: Any, wanted: str, *kinds: Any) -> None:
    if not any(jnp.issubdtype(value.dtype, kind) for kind in (jnp.integer, *kinds)):
        raise TypeError(f"`{name}` must be {wanted}, got dtype {value.dtype}")

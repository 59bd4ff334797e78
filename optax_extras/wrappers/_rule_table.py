"""Tables of which rule is for which leaf."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from optax_extras._core import checks, wording
from optax_extras.wrappers._rule import FOREVER, Rules
from optax_extras.wrappers._rule_matching import RuleSet
from optax_extras.wrappers._rules import RuledTransformation


class LeafRule(NamedTuple):
    """A leaf, and the rule that `with_rules` treats it by.

    Attributes:
      path: of the leaf, such as ``layers/0/kernel``.
      shape: of the leaf.
      pattern: the pattern that chose the rule, or None.
      lr_multiplier: a number, an array or a schedule.
      weight_decay: a number, an array or a schedule; None where it is that of
        `with_rules`, which is not known.
      frozen_until: an int or an array; ``2**31 - 1`` for a leaf that is never trained.
    """

    path: str
    shape: tuple[int, ...]
    pattern: str | None
    lr_multiplier: Any
    weight_decay: Any
    frozen_until: Any

    def texts(self) -> list[str]:
        """What a table shows of each field: an array's least and greatest number."""
        return [
            self.path,
            str(self.shape),
            "-" if self.pattern is None else self.pattern,
            _text(self.lr_multiplier),
            "default" if self.weight_decay is None else _text(self.weight_decay),
            _text(self.frozen_until, {0: "-", FOREVER: "forever"}),
        ]


class RuleTable(list[LeafRule]):
    """A list of `LeafRule`, whose text is a table."""

    def __str__(self) -> str:
        """A line for each leaf, in columns."""
        return wording.aligned([LeafRule._fields, *(row.texts() for row in self)])


def describe_rules(
    tx_or_rules: optax.GradientTransformation | Rules,
    params: optax.Params,
    *,
    require_all: bool = False,
) -> RuleTable:
    """Describes which rule of `with_rules` is for which leaf.

    Use it before a long run, to see that each pattern chooses the leaves that it is
    meant for. It reads shapes only, so parameters may be abstract.

    Args:
      tx_or_rules: what `with_rules` returns, or rules as it takes them.
      params: the parameters, or their `jax.ShapeDtypeStruct`.
      require_all: whether a leaf that no pattern matches is an error. It is also one if
        the transformation says so.

    Returns:
      A list of `LeafRule`, in the order of the leaves. Printed, it is a table, in which
      ``-`` stands for no pattern, and for leaves that are not frozen. Without a
      transformation, the weight decay of leaves whose rule has none is ``default``.

    Raises:
      ValueError: a number is out of its range, a pattern is no regular expression or
        chooses no leaf, an array does not broadcast to a leaf, or no pattern matches a
        leaf in spite of ``require_all``.
      TypeError: an argument has the wrong type, such as a transformation that
        `with_rules` does not return.

    Examples:
      >>> import jax, jax.numpy as jnp, optax_extras
      >>> from optax_extras import Rule
      >>> params = {
      ...     "layers": [{"w": jnp.ones((2, 2)), "b": jnp.ones(2)}] * 2,
      ...     "head": jnp.ones((2, 3)),
      ... }
      >>> rules = [
      ...     (".*/b", Rule(weight_decay=0.0)),
      ...     optax_extras.layerwise_decay(r"layers/([0-9]+)/.*", 0.8),
      ... ]
      >>> print(optax_extras.describe_rules(rules, params))
      path        shape   pattern             lr_multiplier  weight_decay  frozen_until
      head        (2, 3)  -                   1              default       -
      layers/0/b  (2,)    .*/b                1              0             -
      layers/0/w  (2, 2)  layers/([0-9]+)/.*  0.8            default       -
      layers/1/b  (2,)    .*/b                1              0             -
      layers/1/w  (2, 2)  layers/([0-9]+)/.*  1              default       -
    """
    require_all = checks.flag("require_all", require_all)
    if isinstance(tx_or_rules, RuledTransformation):
        rule_set, default = tx_or_rules.rules, tx_or_rules.weight_decay
        require_all = require_all or tx_or_rules.require_all
    else:
        rule_set, default = RuleSet(tx_or_rules), None
    return RuleTable(
        LeafRule(
            path=one.path,
            shape=one.shape,
            pattern=one.pattern,
            lr_multiplier=one.rule.lr_multiplier,
            weight_decay=(
                default if one.rule.weight_decay is None else one.rule.weight_decay
            ),
            frozen_until=one.rule.frozen_until,
        )
        for one in rule_set.assign(params, require_all=require_all)
        if one is not None
    )


def _text(value: Any, words: Any = {}) -> str:  # noqa: B006  # it is only read
    if callable(value):
        return _name(value)
    if isinstance(value, jax.core.Tracer):
        return f"traced {value.shape}" if value.ndim else "traced"
    numbers = np.asarray(value)
    if not numbers.size:
        return f"none {numbers.shape}"
    bounds = [
        words.get(x, f"{x:.6g}" if isinstance(x, float) else str(x))
        for x in (numbers.min().item(), numbers.max().item())
    ]
    if not numbers.ndim:
        return str(bounds[0])
    return f"{'…'.join(dict.fromkeys(bounds))} {numbers.shape}"


def _name(schedule: Any) -> str:
    """The name of a schedule, or of the function that has made it."""
    while isinstance(schedule, functools.partial):
        schedule = schedule.func
    name = str(getattr(schedule, "__qualname__", type(schedule).__qualname__))
    if name.endswith("<lambda>"):
        return "<lambda>"
    return name.partition(".<locals>")[0]

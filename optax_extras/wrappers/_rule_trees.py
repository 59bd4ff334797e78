"""Rules as a tree of arrays, which a compiled step takes as an argument."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_extras._core import checks, leaves
from optax_extras._core.patterns import path_text
from optax_extras.typing import Scalar
from optax_extras.wrappers._rule import Rule, Rules
from optax_extras.wrappers._rule_matching import RuleSet, check_shapes


def resolve_rules(
    rules: Rules,
    params: optax.Params,
    *,
    weight_decay: Scalar,
    require_all: bool = False,
) -> Any:
    """Resolves rules to a tree of arrays, which a step of `with_rules` may be given.

    Use it if rules are to change during a run, even all of them, and the step is not to
    be compiled again: ``update(..., rules=tree)`` takes the tree in place of the rules
    that `with_rules` was made with, and makes no constants of its numbers. Where only
    one number changes, it may as well be traced, in rules that the step makes itself.
    For rates that are a function of the count, give `with_rules` schedules.

    The tree has the same structure, shapes and dtypes whatever the rules are, as long
    as arrays have the same shapes. It may hold more leaves than a step needs, as inside
    `optax.masked`. A step with such a tree needs ``params``.

    Args:
      rules: as for `with_rules`, without schedules.
      params: the parameters, or their `jax.ShapeDtypeStruct`.
      weight_decay: of leaves whose rule has none, at least 0; a number or a 0-d array.
        The tree does not know that of `with_rules`, which has no effect then.
      require_all: whether a leaf that no pattern matches is an error.

    Returns:
      A tree in the structure of ``params``, with a `Rule` of arrays for each leaf:
      float32 multiplier and weight decay, and int32 ``frozen_until``, which is
      ``2**31 - 1`` for leaves that are frozen forever.

    Raises:
      ValueError: a number is out of its range, a pattern chooses no leaf, an array does
        not broadcast to a leaf, or no pattern matches a leaf in spite of
        ``require_all``.
      TypeError: an argument has the wrong type, or there is a schedule.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> from optax_extras import Rule
      >>> params = {"body": jnp.ones(2), "head": jnp.ones(2)}
      >>> tx = optax_extras.with_rules(optax.identity(), 0.5, {})
      >>> @jax.jit
      ... def step(params, state, rules):
      ...     grads = jax.tree.map(jnp.ones_like, params)
      ...     updates, state = tx.update(grads, state, params, rules=rules)
      ...     return optax.apply_updates(params, updates), state
      >>> state = tx.init(params)
      >>> frozen = {"body": Rule(frozen_until=1000)}
      >>> slow = {".*": Rule(lr_multiplier=0.5)}
      >>> for rules in frozen, slow:
      ...     tree = optax_extras.resolve_rules(rules, params, weight_decay=0.0)
      ...     params, state = step(params, state, tree)
      ...     print(params["body"], params["head"])
      [1. 1.] [0.5 0.5]
      [0.75 0.75] [0.25 0.25]
      >>> step._cache_size()
      1
    """
    default = checks.nonnegative("weight_decay", weight_decay)
    require_all = checks.flag("require_all", require_all)
    assigned = RuleSet(rules).assign(params, require_all=require_all)
    treedef: Any = jax.tree.structure(params, is_leaf=leaves.is_none)
    resolved: list[Rule | None] = []
    for one in assigned:
        if one is None:
            resolved.append(None)
            continue
        rule = one.rule
        if rule.weight_decay is None:
            rule = rule._replace(weight_decay=default)
        for field, value in zip(rule._fields, rule, strict=True):
            if callable(value):
                raise TypeError(
                    f"`{field}` of the rule {one.pattern!r} must be a number or an"
                    " array, which `resolve_rules` can make part of a tree; got a"
                    " schedule, which `with_rules` takes"
                )
        resolved.append(
            Rule(
                lr_multiplier=_array(rule.lr_multiplier, jnp.float32),
                weight_decay=_array(rule.weight_decay, jnp.float32),
                frozen_until=_array(rule.frozen_until, jnp.int32),
            )
        )
    return treedef.unflatten(resolved)


def _array(value: Any, dtype: Any) -> jax.Array:
    """A copy, which may be donated while the caller keeps the value."""
    return jnp.array(value).astype(dtype)


def rules_of_tree(tree: Any, updates: Any) -> list[Rule | None]:
    """The rule of each update, by its path, in a tree that `resolve_rules` has made.

    Raises:
      TypeError: a leaf of the tree is no rule.
      ValueError: an update has no rule, or one that does not broadcast to it.
    """
    entries = jax.tree.leaves_with_path(tree, is_leaf=lambda x: isinstance(x, Rule))
    by_path = {}
    for path, rule in entries:
        if not isinstance(rule, Rule):
            raise TypeError(
                "`rules` of `update` must be a tree of `Rule`, as `resolve_rules` makes"
                f" it, got {rule!r} at {path_text(path)!r}"
            )
        by_path[path] = rule
    found: list[Rule | None] = []
    for path, update in jax.tree.leaves_with_path(updates, is_leaf=leaves.is_none):
        text = path_text(path)
        if update is None:
            found.append(None)
        elif path not in by_path:
            raise ValueError(
                "`rules` of `update` must have a rule for each leaf, as `resolve_rules`"
                f" makes it of the parameters; there is none for {text!r}"
            )
        else:
            check_shapes(
                f"of the rule at {text!r}", text, jnp.shape(update), by_path[path]
            )
            found.append(by_path[path])
    return found

"""Learning rates, weight decay and freezing by rules for the paths of leaves."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_extras._core import checks, dtypes, leaves, scalars
from optax_extras._core.inner import as_transformation
from optax_extras._core.missing import update_without_missing
from optax_extras.typing import ScalarOrSchedule
from optax_extras.wrappers._rule import Rule, Rules
from optax_extras.wrappers._rule_matching import RuleSet
from optax_extras.wrappers._rule_numbers import Moment, updated_leaf
from optax_extras.wrappers._rule_trees import rules_of_tree


class WithRulesState(NamedTuple):
    """State of `with_rules`; no rule is in it."""

    count: jax.Array  # type: ignore[assignment]  # updates so far; int32[]
    inner_state: optax.OptState  # of the transformation inside


class RuledTransformation(optax.GradientTransformationExtraArgs):  # type: ignore[misc]
    """What `with_rules` returns: a transformation that can be asked for its rules."""

    rules: RuleSet
    weight_decay: ScalarOrSchedule
    require_all: bool


def with_rules(
    inner: optax.GradientTransformation,
    learning_rate: ScalarOrSchedule,
    rules: Rules,
    *,
    weight_decay: ScalarOrSchedule = 0.0,
    require_all: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Learning rates, weight decay and freezing by rules for the paths of leaves.

    Use it to fine-tune with layer-wise rates, to unfreeze layers one after another, to
    leave biases out of weight decay, or for the rates that muP gives each kind of leaf.
    Where groups of leaves need different methods, use `optax.partition`.

    ``inner`` makes a direction :math:`d_t` of all gradients, without a learning rate,
    as `optax.scale_by_adam` does. With :math:`\eta_t` = ``learning_rate``, and the
    ``lr_multiplier`` :math:`m_t`, the ``weight_decay`` :math:`\lambda_t` and the
    ``frozen_until`` :math:`T` of a leaf's `Rule`, its update at count :math:`t` is

    .. math::

        u_t = -\eta_t m_t (d_t + \lambda_t \theta_t) \quad (t \ge T), \qquad
        u_t = 0 \quad (t < T)

    A path is written as in ``layers/0/kernel``, and a pattern is a regular expression
    that must match the whole of it. The first pattern that matches counts; leaves that
    none matches are treated by ``Rule()``. A frozen parameter does not change by a bit.
    The arithmetic is done in float32 or wider, and rounded once.

    Gradients of frozen leaves still reach ``inner``, so that its moments are warm when
    a leaf is trained. With fresh moments after many steps, when nothing corrects their
    bias any more, the first updates of Adam would be about three times too large.
    Therefore, too, a global norm in ``inner``, as in `optax.clip_by_global_norm`, is
    that of all gradients, frozen leaves included. `optax.partition` takes the norm of
    each group.

    The state holds no rule, and is the same whatever the rules are. A run can therefore
    go on from a checkpoint under other rules. Within one compiled step, numbers of the
    rules may be traced, and ``update(..., rules=tree)`` replaces the rules for a step
    by those of a tree that `resolve_rules` makes.

    *Differences from the source*: there, a rule multiplies the weight decay; here, it
    gives the weight decay itself. Arrays, schedules, freezing and the tree of rules are
    this library's.

    Args:
      inner: the direction, which may use ``params`` and extra arguments.
      learning_rate: :math:`\eta`, at least 0; a number, a 0-d array or a schedule.
      rules: a mapping from patterns to `Rule`, or pairs of a pattern and a `Rule`, such
        as `layerwise_decay` makes.
      weight_decay: :math:`\lambda` of leaves whose rule has none, at least 0; a number,
        a 0-d array or a schedule.
      require_all: whether a leaf that no pattern matches is an error.

    Returns:
      A gradient transformation that contains the learning rate. Its state is that of
      ``inner`` and 4 bytes. Its ``update`` needs ``params`` for weight decay.

    Raises:
      ValueError: a number is out of its range, or a pattern is no regular expression;
        at ``init`` and ``update``, a pattern chooses no leaf, an array does not
        broadcast to a leaf, or no pattern matches a leaf in spite of ``require_all``;
        at ``update``, ``params`` is missing, or the gradients or the tree of rules do
        not fit.
      TypeError: an argument has the wrong type, or a leaf is not floating-point or
        complex.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> from optax_extras import Rule
      >>> params = {"body": jnp.zeros(3), "head": jnp.zeros(3)}
      >>> tx = optax_extras.with_rules(
      ...     optax.scale_by_adam(),
      ...     0.1,
      ...     {"body": Rule(lr_multiplier=0.5, frozen_until=50), "head": Rule()},
      ... )
      >>> print(optax_extras.describe_rules(tx, params))
      path  shape  pattern  lr_multiplier  weight_decay  frozen_until
      body  (3,)   body     0.5            0             50
      head  (3,)   head     1              0             -
      >>> def loss(params):
      ...     return jnp.sum((params["body"] - 1) ** 2 + (params["head"] - 1) ** 2)
      >>> state = tx.init(params)
      >>> for step in range(150):
      ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
      ...     params = optax.apply_updates(params, updates)
      ...     if step == 49:
      ...         print(params["body"])
      [0. 0. 0.]
      >>> bool(loss(params) < 0.1)
      True

    References:
      torchtitan 2026, "Introduce param_groups to optimizer config", pull request 2859
      of pytorch/torchtitan
    """
    inner = as_transformation("inner", inner)
    rate = checks.nonnegative("learning_rate", learning_rate, schedule=True)
    decay = checks.nonnegative("weight_decay", weight_decay, schedule=True)
    require_all = checks.flag("require_all", require_all)
    rule_set = RuleSet(rules)

    def own_rules(updates: Any, params: Any) -> list[Rule | None]:
        assigned = (
            rule_set.assign(updates, require_all=False, gradients=True)
            if params is None
            else rule_set.assign(params, require_all=require_all)
        )
        return [one and one.rule for one in assigned]

    def init(params: optax.Params) -> WithRulesState:
        rule_set.assign(params, require_all=require_all)
        return WithRulesState(jnp.zeros((), jnp.int32), inner.init(params))

    def update(
        updates: optax.Updates,
        state: WithRulesState,
        params: optax.Params | None = None,
        *,
        rules: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, WithRulesState]:
        checks.check_updates(updates, params)
        if rules is not None:
            chosen = rules_of_tree(rules, updates)
        else:
            chosen = own_rules(updates, params)
        directions, inner_state = update_without_missing(
            inner, updates, state.inner_state, params, **extra_args
        )
        treedef: Any = jax.tree.structure(updates, is_leaf=leaves.is_none)
        count, dtype = state.count, dtypes.statistic_dtype(updates)
        at = Moment(count, scalars.evaluate(rate, count, dtype), decay, dtype)
        columns = (
            treedef.flatten_up_to(directions),
            ([None] * len(chosen) if params is None else treedef.flatten_up_to(params)),
        )
        moved = [
            None if d is None else updated_leaf(d, p, rule or Rule(), at)
            for d, p, rule in zip(*columns, chosen, strict=True)
        ]
        count = optax.safe_increment(count)
        return treedef.unflatten(moved), WithRulesState(count, inner_state)

    tx = RuledTransformation(init, update)
    tx.rules, tx.weight_decay, tx.require_all = rule_set, decay, require_all
    return tx

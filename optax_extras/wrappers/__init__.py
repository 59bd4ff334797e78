"""Transformations around any transformation."""

from optax_extras.wrappers._adaptive_restart import (
    AdaptiveRestartState,
    adaptive_restart,
)
from optax_extras.wrappers._bucketed import BucketedState, bucketed
from optax_extras.wrappers._cautious import CautiousState, cautious
from optax_extras.wrappers._hyperball import HyperballState, hyperball
from optax_extras.wrappers._layerwise import layerwise_decay
from optax_extras.wrappers._record import record
from optax_extras.wrappers._recorded import RecordState, leaf_paths, recorded
from optax_extras.wrappers._rule import Rule
from optax_extras.wrappers._rule_table import LeafRule, RuleTable, describe_rules
from optax_extras.wrappers._rule_trees import resolve_rules
from optax_extras.wrappers._rules import WithRulesState, with_rules
from optax_extras.wrappers._skip_spikes import SkipSpikesState, skip_spikes
from optax_extras.wrappers._stacked import StackedState, stacked

__all__ = [
    "StackedState",
    "stacked",
    "BucketedState",
    "bucketed",
    "CautiousState",
    "cautious",
    "HyperballState",
    "hyperball",
    "SkipSpikesState",
    "skip_spikes",
    "RecordState",
    "record",
    "recorded",
    "leaf_paths",
    "Rule",
    "WithRulesState",
    "with_rules",
    "layerwise_decay",
    "resolve_rules",
    "LeafRule",
    "RuleTable",
    "describe_rules",
    "AdaptiveRestartState",
    "adaptive_restart",
]

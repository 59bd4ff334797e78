"""Learning rates that decay from the last layer to the first (Howard & Ruder 2018)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optax_extras._core import checks
from optax_extras._core.patterns import compile_patterns
from optax_extras.typing import Scalar, ScalarOrSchedule
from optax_extras.wrappers._rule import ByPath, Rule


def layerwise_decay(
    pattern: str,
    decay: Scalar,
    *,
    axis: int | None = None,
    weight_decay: ScalarOrSchedule | None = None,
    frozen_until: Scalar = 0,
) -> tuple[str, Rule]:
    r"""A rule for `with_rules`: learning rates that decay from the last layer down.

    Use it to fine-tune a pretrained model, whose first layers need to change less. For
    a model that is trained from the start, there is no reason for it.

    Of :math:`L` layers, layer :math:`i` = 0, …, :math:`L-1` gets the multiplier

    .. math::

        m_i = \xi^{L-1-i}, \qquad \xi = \text{decay}

    The layers are those that the pattern's group matches in the paths of the tree, in
    the order of their numbers, among which there may be gaps. Layers of which earlier
    rules take all leaves count too. With ``axis``, each leaf of the pattern holds the
    parameters of all layers along that axis, as `jax.lax.scan` over layers needs them,
    and its multiplier is an array. Inside `jax.shard_map`, where a leaf may be a part
    of such a stack, make the multipliers outside of it with `resolve_rules`.

    *Differences from the sources*: none in the multipliers of layers. Embeddings, which
    ELECTRA puts one layer below the first, get their own rule, with ``decay**L``.

    Args:
      pattern: a regular expression for whole paths, with one group, which matches the
        number of the layer, as in ``r"layers/(\d+)/.*"``. Write other groups
        ``(?:...)``. With ``axis``, it has no group.
      decay: :math:`\xi` in (0, 1]; a number or a 0-d array. ULMFiT takes 1/2.6, and
        ELECTRA 0.8 or 0.9.
      axis: the axis of each leaf along which layers are stacked.
      weight_decay: as for `Rule`.
      frozen_until: as for `Rule`.

    Returns:
      The pattern and its rule, a pair to be put among the rules of `with_rules`.

    Raises:
      ValueError: ``decay`` is out of its range, or the pattern has another number of
        groups; when the rule is used, the group matches no number, or a leaf does not
        have the axis.
      TypeError: an argument has the wrong type.

    Examples:
      >>> import jax.numpy as jnp, optax_extras
      >>> params = {"layers": [jnp.ones(2), jnp.ones(2), jnp.ones(2)]}
      >>> rules = [optax_extras.layerwise_decay(r"layers/(\d+)", 0.5)]
      >>> table = optax_extras.describe_rules(rules, params)
      >>> [(row.path, row.lr_multiplier) for row in table]
      [('layers/0', 0.25), ('layers/1', 0.5), ('layers/2', 1.0)]

    References:
      Howard & Ruder 2018, "Universal Language Model Fine-tuning for Text
      Classification", arXiv 1801.06146

      Clark et al. 2020, "ELECTRA: Pre-training Text Encoders as Discriminators Rather
      Than Generators", arXiv 2003.10555
    """
    decay = checks.number("decay", decay, "in (0, 1]", lambda x: 0 < x <= 1)
    if axis is not None and (isinstance(axis, bool) or not isinstance(axis, int)):
        raise TypeError(f"`axis` must be an int or None, got {axis!r}")
    by_depth: Any = _ByDepth(decay) if axis is None else _AlongAxis(decay, axis)
    (compiled,) = compile_patterns("layerwise_decay", [pattern])
    by_depth.check_pattern(pattern, compiled.groups)
    return pattern, Rule(by_depth, weight_decay, frozen_until)


@dataclasses.dataclass(frozen=True, eq=False)
class _ByDepth(ByPath):
    """The multiplier of a leaf of one layer."""

    decay: Any

    def check_pattern(self, pattern: str, groups: int) -> None:
        if groups != 1:
            raise ValueError(
                "the pattern of `layerwise_decay` must have one group, which matches"
                f" the layer's number, as in 'layers/(\\d+)/.*'; {pattern!r} has"
                f" {groups}"
            )

    def multiplier(
        self, path: str, found: str | None, depths: list[int], shape: tuple[int, ...]
    ) -> Any:
        if found is None or not found.isdecimal():
            raise ValueError(
                "the group in the pattern of `layerwise_decay` must match the layer's"
                f" number, got {found!r} in {path!r}"
            )
        return _power(self.decay, np.array(len(depths) - 1 - depths.index(int(found))))


@dataclasses.dataclass(frozen=True, eq=False)
class _AlongAxis(ByPath):
    """The multipliers of a leaf that holds all layers."""

    decay: Any
    axis: int

    def check_pattern(self, pattern: str, groups: int) -> None:
        if groups:
            raise ValueError(
                "with `axis`, the pattern of `layerwise_decay` must have no groups but"
                f" (?:...), as the layers are in each leaf; {pattern!r} has {groups}"
            )

    def multiplier(
        self, path: str, found: str | None, depths: list[int], shape: tuple[int, ...]
    ) -> Any:
        if not -len(shape) <= self.axis < len(shape):
            raise ValueError(
                f"`axis` of `layerwise_decay` must be one of each leaf's, got"
                f" {self.axis} for shape {shape} at {path!r}"
            )
        length = shape[self.axis]
        fitting = [1] * len(shape)
        fitting[self.axis] = length
        return _power(self.decay, np.arange(length)[::-1].reshape(fitting))


def _power(decay: Any, exponent: np.ndarray[Any, Any]) -> Any:
    """The powers of a number as NumPy's or Python's, those of a JAX array as JAX's."""
    if isinstance(decay, jax.Array):
        wide = jnp.promote_types(decay.dtype, jnp.float32)
        return jnp.power(decay.astype(wide), jnp.asarray(exponent, wide))
    powers = decay**exponent
    return powers if powers.ndim else float(powers)

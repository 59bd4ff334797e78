"""An exchange between workers that train alone."""

import dataclasses
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from optax_extras._core import scalars
from optax_extras._core.dtypes import compute_dtype
from optax_extras._core.leaves import chosen, is_none
from optax_extras._core.placement import PerWorker
from optax_extras.communication._averager import (
    Averager,
    agreed,
    as_real,
    is_finite,
    like,
    weighted,
)
from optax_extras.communication._workers import own, with_own
from optax_extras.typing import Scalar


class Agreement(NamedTuple):
    """The fields of a `LocalUpdatesState` that an exchange changes."""

    adopted: jax.Array
    reference: tuple[Any, ...]
    outer: tuple[Any, ...]
    weight: PerWorker
    residual: tuple[PerWorker, ...]
    compressor: tuple[Any, ...]


class Worker(NamedTuple):
    """Where a worker is; all leaves, with the workers' axis in front.

    Attributes:
      keys: paths of the leaves.
      params: its parameters before the step.
      steps: its own step from there; None for leaves without a gradient.
    """

    keys: list[Any]
    params: list[Any]
    steps: list[Any]

    def learned(self, leaf: int, reference: jax.Array) -> jax.Array:
        """How far it is behind a reference, in float32, (1, *shape)."""
        params, step = self.params[leaf], self.steps[leaf]
        after = params if step is None else (params + step).astype(params.dtype)
        wide = compute_dtype(reference.dtype)
        difference = reference[jnp.newaxis].astype(wide) - after.astype(wide)
        real: jax.Array = jax.vmap(as_real)(difference)  # behind the workers' axis
        return real


@dataclasses.dataclass(frozen=True)
class Exchange:
    """How workers agree on a new reference.

    Attributes:
      averager: takes the mean of what they have learned.
      outer: moves the reference.
      every: steps of a round.
      decay: share of the residual that is sent on.
    """

    averager: Averager
    outer: optax.GradientTransformationExtraArgs
    every: int
    decay: Scalar

    def __call__(
        self, number: int, worker: Worker, step: jax.Array, old: Agreement
    ) -> Agreement:
        """Exchanges a fragment.

        Args:
          number: of the fragment.
          worker: where this worker is.
          step: number of the round; int32[].
          old: what the workers have agreed on so far.
        """
        reference = old.reference[number]
        treedef: Any = jax.tree.structure(reference, is_leaf=is_none)
        leaves = jax.tree.leaves(reference, is_leaf=is_none)
        here = [i for i, leaf in enumerate(leaves) if leaf is not None]
        kept = own(old.residual[number], reference)
        learned = [worker.learned(i, leaves[i]) for i in here]
        finite = agreed(all_finite(learned), self.averager.group.axis_name)
        share = jnp.where(finite, old.weight.value[0, number] / self.every, 0)

        def takes_part(new: Any, old: Any) -> Any:
            return jnp.where(share > 0, new, old)

        sums = [weighted(x, share) for x in learned]
        decay = scalars.scalar(self.decay, jnp.float32)
        for place, i in enumerate(here):
            if kept[i] is not None:
                sums[place] = takes_part(sums[place] + decay * kept[i], 0)
        found = self.averager.mean(
            [worker.keys[i] for i in here], sums, old.compressor[number], step, share
        )

        def if_finite(new: Any, old: Any) -> Any:
            return chosen(found.finite, new, old)

        descent: list[Any] = [None] * len(leaves)
        for i, mean, left in zip(here, found.means, found.left, strict=True):
            descent[i] = like(mean, leaves[i])
            if kept[i] is not None:
                kept[i] = if_finite(takes_part(left, kept[i]), kept[i])

        def moved(descent: Any, reference: Any, state: Any) -> tuple[Any, Any]:
            updates, state = self.outer.update(descent, state, reference)
            return optax.apply_updates(reference, updates), state

        # A branch, because XLA would copy buffers of which a select keeps one.
        adopted, outer_state = lax.cond(
            found.finite,
            moved,
            lambda descent, *same: same,
            treedef.unflatten(descent),
            reference,
            old.outer[number],
        )
        weight = old.weight.value
        residual = with_own(old.residual[number], kept, reference)
        compressor_state = if_finite(found.state, old.compressor[number])

        def replaced(parts: tuple[Any, ...], part: Any) -> tuple[Any, ...]:
            return (*parts[:number], part, *parts[number + 1 :])

        return Agreement(
            adopted=old.adopted.at[number].set(found.finite),
            reference=replaced(old.reference, adopted),
            outer=replaced(old.outer, outer_state),
            weight=PerWorker(if_finite(weight.at[0, number].set(0), weight)),
            residual=replaced(old.residual, residual),
            compressor=replaced(old.compressor, compressor_state),
        )


def all_finite(arrays: Iterable[Any]) -> jax.Array:
    """Whether all numbers of a worker are; bool[]."""
    flags = [is_finite(as_real(x)) for x in arrays]
    return jnp.all(jnp.stack(flags)) if flags else jnp.bool(True)

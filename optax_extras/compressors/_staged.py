"""One compressor after another."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from optax_extras._core.placement import Layout
from optax_extras.compressors._bits import from_bytes, to_bytes
from optax_extras.compressors._compressor import Compressor, Exchanged, Site, Stack
from optax_extras.compressors._group import Group


@dataclasses.dataclass(frozen=True)
class Staged(Compressor):
    """Compressors, each from a step on; leaves are those that the last one compresses.

    Attributes:
      starts: the first steps of the stages; the first one is 0.
      stages: the compressors.
    """

    starts: tuple[int, ...]
    stages: tuple[Compressor, ...]

    def encode(self, x: jax.Array, site: Site) -> jax.Array:
        """The message of the last stage."""
        return self.stages[-1].encode(x, site)

    def decode(self, data: jax.Array, site: Site) -> jax.Array:
        """What a message of the last stage stands for."""
        return self.stages[-1].decode(data, site)

    def saves(self, shape: tuple[int, ...]) -> bool:
        """Whether the last stage does."""
        return self.stages[-1].saves(shape)

    def init(
        self, layouts: Sequence[Layout], paths: Sequence[Any], group: Group
    ) -> Any:
        """The states of the stages, if one of them has any."""
        states = tuple(one.init(layouts, paths, group) for one in self.stages)
        return states if any(states) else ()

    def exchange(
        self, stacks: Sequence[Stack], state: Any, finite: jax.Array, group: Group
    ) -> Exchanged:
        """The exchange of the stage of this step."""
        step = stacks[0].site.step
        number = sum(step >= start for start in self.starts[1:])

        def stage(i: int, arrays: Any, state: Any, finite: Any) -> Exchanged:
            own = state[i] if state else ()
            given = [s._replace(x=x) for s, x in zip(stacks, arrays, strict=True)]
            found = self.stages[i].exchange(given, own, finite, group)
            kept = (*state[:i], found.state, *state[i + 1 :]) if state else ()
            return found._replace(state=kept)

        arrays = [stack.x for stack in stacks]
        branches = [functools.partial(stage, i) for i in range(len(self.stages))]
        found: Exchanged = lax.switch(number, branches, arrays, state, finite)
        return found


class Dense(Compressor):
    """Sends leaves as they are, by a sum over the workers."""

    def encode(self, x: jax.Array, site: Site) -> jax.Array:
        """The bytes of the leaf."""
        return to_bytes(x)

    def decode(self, data: jax.Array, site: Site) -> jax.Array:
        """The leaf."""
        return from_bytes(data, site.shape, jnp.float32)

    def exchange(
        self, stacks: Sequence[Stack], state: Any, finite: jax.Array, group: Group
    ) -> Exchanged:
        """One sum of all leaves."""
        leaves = [stack.x for stack in stacks]
        sums, everywhere, group = group.sum_with_report(leaves, finite)
        means = [x / group.total for x in sums]
        left = [jnp.zeros_like(x) for x in leaves]
        return Exchanged(means, left, state, everywhere)

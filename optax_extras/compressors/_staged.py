"""One compressor after another."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from optax_extras.compressors._compressor import Compressor, Exchanged, Group, Site


@dataclasses.dataclass(frozen=True)
class Staged(Compressor):
    """Compressors without state, each from a step on.

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

    def exchange(
        self,
        leaves: Sequence[jax.Array],
        sites: Sequence[Site],
        state: Any,
        finite: jax.Array,
        group: Group,
    ) -> Exchanged:
        """The exchange of the stage of this step."""
        number = jnp.searchsorted(jnp.array(self.starts), sites[0].step, "right") - 1
        branches = [
            lambda leaves, finite, one=one: one.exchange(
                leaves, sites, state, finite, group
            )
            for one in self.stages
        ]
        found: Exchanged = lax.switch(number, branches, list(leaves), finite)
        return found

"""The group of workers that a compressor exchanges bytes with."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from optax_extras._core.joining import joined, parted
from optax_extras.compressors._bits import from_bytes, to_bytes
from optax_extras.typing import AxisName

Average = Literal["all", "senders"]
"""Whether a mean is over all workers, or for each element over those that sent it."""


@dataclasses.dataclass(frozen=True)
class Group:
    """The workers along a mapped axis, inside `jax.shard_map`.

    Attributes:
      axis_name: the axis, or a tuple of axes.
      workers: number of workers.
      average: whether a mean is over all workers, or over those that sent an element.
      weight: by which this worker has multiplied its leaves, float32[]; None where all
        workers count the same.
      weights: those of all workers, float32[N], once they have come; or None.
      total: what sums are divided by for a mean: the number of workers, or the sum of
        their weights once it is known.
    """

    axis_name: AxisName
    workers: int
    average: Average = "all"
    weight: Any = None
    weights: Any = None
    total: Any = None

    def __post_init__(self) -> None:
        """Divides by the number of workers, unless there are weights."""
        if self.total is None:
            object.__setattr__(self, "total", self.workers)

    @property
    def report_bytes(self) -> int:
        """Length of a report."""
        return 1 if self.weight is None else 5

    def report(self, finite: jax.Array) -> jax.Array:
        """What a worker sends beside its leaves: whether they are finite, its weight.

        Args:
          finite: bool[].

        Returns:
          uint8[report_bytes].
        """
        flag = finite[np.newaxis].astype(jnp.uint8)
        if self.weight is None:
            return flag
        return jnp.concatenate([flag, to_bytes(self.weight)])

    def heard(self, reports: jax.Array) -> tuple[jax.Array, "Group"]:
        """Whether all leaves are finite, bool[], and the group with all weights.

        Args:
          reports: those of all workers, uint8[N, report_bytes].
        """
        finite = jnp.all(reports[:, 0] == 1)
        if self.weight is None:
            return finite, self
        weights = from_bytes(reports[:, 1:], (self.workers,), jnp.float32)
        total = jnp.sum(weights)
        group = dataclasses.replace(self, weights=weights, total=total)
        return finite & (total > 0) & jnp.isfinite(total), group

    def gather(self, data: jax.Array) -> jax.Array:
        """The arrays of all workers, (N, ...), the same on every worker."""
        gathered: jax.Array = lax.all_gather(data, self.axis_name, to="invarying")
        return gathered

    def transpose(self, rows: jax.Array) -> jax.Array:
        """Sends row i to worker i; returns what all have sent here, (N, ...)."""
        moved: jax.Array = lax.all_to_all(rows, self.axis_name, 0, 0, tiled=True)
        return moved

    def sum_of(self, arrays: Sequence[jax.Array]) -> list[jax.Array]:
        """Sums over all workers, in one collective; the same on every worker."""
        return self._sums(arrays)[0]

    def _sums(self, arrays: Sequence[jax.Array]) -> tuple[list[jax.Array], jax.Array]:
        """The sums, and whether all of them are finite."""
        flat = joined([x.reshape(-1) for x in arrays])
        total = lax.psum(flat, self.axis_name)
        parts = parted(total, [x.size for x in arrays])
        finite = jnp.isfinite(total.max()) & jnp.isfinite(total.min())
        return [
            part.reshape(x.shape) for part, x in zip(parts, arrays, strict=True)
        ], finite

    def sum_with_report(
        self, arrays: Sequence[jax.Array], finite: jax.Array
    ) -> tuple[list[jax.Array], jax.Array, "Group"]:
        """`sum_of`, with what `heard` returns; the weights become known in sum.

        Sums that overflow are not finite either.
        """
        report = finite.astype(jnp.float32)[np.newaxis]
        if self.weight is not None:
            report = jnp.stack([report[0], self.weight])
        (*sums, reports), finite = self._sums([*arrays, report])
        finite = finite & (reports[0] == self.workers)
        if self.weight is None:
            return sums, finite, self
        group = dataclasses.replace(self, total=reports[1])
        return sums, finite & (reports[1] > 0), group

"""The program that runs many trials of a task at once."""

import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

from optax_extras.tuning._task import Task
from optax_extras.tuning._training import descend, keyed, keys_of_seed

MakeOptimizer = Callable[..., optax.GradientTransformation]


class Measured(NamedTuple):
    """What some trials gave, and the time they took."""

    metrics: dict[str, np.ndarray[Any, Any]]  # each (rows, seeds, evaluations)
    losses: np.ndarray[Any, Any]  # (rows, seeds, evaluations − 1)
    seconds: float


class Trials:
    """Trials of every row of some hyperparameters with every seed.

    Compiled once for a number of rows and seeds, whatever they are.
    """

    def __init__(
        self,
        task: Task,
        make_optimizer: MakeOptimizer,
        eval_every: int,
        sharding: NamedSharding | None,
    ):
        """Compiles nothing yet; the sharding is that of the rows."""
        self._eval_every, self._sharding = eval_every, sharding

        def start(values: Any, seed: jax.Array) -> Any:
            keys = keys_of_seed(seed)
            params = task.init(keys.init)
            state = keyed(make_optimizer, keys)(**values).init(params)
            return (params, state), task.evaluate(params)

        def advance(
            carry: Any, values: Any, seed: jax.Array, first: jax.Array, steps: jax.Array
        ) -> Any:
            keys = keys_of_seed(seed)
            step = partial(descend, task, keyed(make_optimizer, keys)(**values), keys)

            def guarded(carry: Any, entry: Any) -> Any:
                # The last segment may end early, and is not compiled again for it.
                inside = entry[0] < steps
                return jax.lax.cond(
                    inside, step, lambda carry, _: (carry, jnp.zeros(())), carry, entry
                )

            numbers = first + jnp.arange(eval_every, dtype=jnp.int32)
            plan = task.batches.plan(keys.batches, first, eval_every)
            carry, losses = jax.lax.scan(guarded, carry, (numbers, plan))
            mean = jnp.sum(losses) / jnp.minimum(eval_every, steps - first)
            return carry, task.evaluate(carry[0]), mean

        def over_trials(function: Callable[..., Any], carries: int, others: int) -> Any:
            """Maps over seeds inside and rows outside, which then share their data."""
            inner = jax.vmap(function, (0,) * carries + (None, 0) + (None,) * others)
            return jax.vmap(inner, (0,) * carries + (0, None) + (None,) * others)

        self._start = jax.jit(over_trials(start, 0, 0), out_shardings=sharding)
        self._advance = jax.jit(
            over_trials(advance, 1, 2), out_shardings=sharding, donate_argnums=0
        )

    def state_bytes_per_parameter(self, values: Any, seeds: jax.Array) -> float:
        """The size of an optimizer's state; nothing is run."""
        (params, state), _ = jax.eval_shape(self._start, values, seeds)
        parameters: int = sum(p.size for p in jax.tree.leaves(params))
        size: int = sum(s.size * s.dtype.itemsize for s in jax.tree.leaves(state))
        return size / parameters

    def compile(self, values: Any, seeds: jax.Array) -> int:
        """Compiles for these shapes; returns the bytes a device needs at once.

        The compiled functions are those that `run` finds.
        """
        start = self._start.lower(values, seeds).compile()
        carry = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(  # type: ignore[no-untyped-call]
                x.shape, x.dtype, sharding=self._sharding
            ),
            jax.eval_shape(self._start, values, seeds)[0],
        )
        advance = self._advance.lower(
            carry, values, seeds, jnp.int32(0), jnp.int32(0)
        ).compile()
        return max(map(_bytes, (start, advance)))

    def run(
        self,
        values: Any,
        seeds: jax.Array,
        steps: int,
        report: Callable[[int], object],
    ) -> Measured:
        """Runs the trials and reports the steps done after each evaluation."""
        started = time.perf_counter()
        carry, metrics = self._start(values, seeds)
        rows, losses = [_fetch(metrics)], []
        for first in range(0, steps, self._eval_every):
            carry, metrics, loss = self._advance(
                carry, values, seeds, jnp.int32(first), jnp.int32(steps)
            )
            rows.append(_fetch(metrics))
            losses.append(_fetch(loss))
            report(min(first + self._eval_every, steps))
        return Measured(
            jax.tree.map(lambda *x: np.stack(x, axis=-1), *rows),
            np.stack(losses, axis=-1),
            time.perf_counter() - started,
        )


_kept = lru_cache(maxsize=8)(Trials)


def trials_of(
    task: Task,
    make_optimizer: MakeOptimizer,
    eval_every: int,
    sharding: NamedSharding | None,
) -> Trials:
    """Trials, the same as the last time if that is not long ago."""
    try:
        hash((task, make_optimizer))
    except TypeError:
        return Trials(task, make_optimizer, eval_every, sharding)
    return _kept(task, make_optimizer, eval_every, sharding)


def _bytes(compiled: jax.stages.Compiled) -> int:
    stats: Any = compiled.memory_analysis()
    sizes = (
        stats.argument_size_in_bytes,
        stats.output_size_in_bytes,
        stats.temp_size_in_bytes,
        -stats.alias_size_in_bytes,
    )
    return sum(sizes)


def _fetch(tree: Any) -> Any:
    """Arrays on the host, also those of which other processes have a part."""

    def leaf(x: jax.Array) -> np.ndarray[Any, Any]:
        if x.is_fully_addressable or x.is_fully_replicated:
            return np.asarray(x)
        gathered: np.ndarray[Any, Any] = multihost_utils.process_allgather(
            x, tiled=True
        )
        return gathered

    return jax.tree.map(leaf, tree)

"""The programs that run many trials of a task at once."""

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


class _TaskPrograms:
    """What does not depend on the optimizer, and is compiled once for all of them."""

    def __init__(self, task: Task, eval_every: int, sharding: NamedSharding | None):
        self.init = jax.jit(jax.vmap(lambda seed: task.init(keys_of_seed(seed).init)))
        self.plan = jax.jit(
            jax.vmap(
                lambda seed, first: task.batches.plan(
                    keys_of_seed(seed).batches, first, eval_every
                ),
                (0, None),
            )
        )
        # Row after row, as all the data is in memory for each.
        evaluate = partial(jax.lax.map, jax.vmap(task.evaluate))
        if sharding is not None:
            evaluate = jax.shard_map(
                evaluate,
                mesh=sharding.mesh,
                in_specs=sharding.spec,
                out_specs=sharding.spec,
                check_vma=False,
            )
        self.evaluate = jax.jit(evaluate)


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
        self._task = _task_programs(task, eval_every, sharding)

        def start(params: Any, values: Any, seed: jax.Array) -> Any:
            make = keyed(make_optimizer, keys_of_seed(seed))
            return params, make(**values).init(params)

        def advance(
            carry: Any, values: Any, seed: jax.Array, plan: Any, first: Any, steps: Any
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
            carry, losses = jax.lax.scan(guarded, carry, (numbers, plan))
            return carry, jnp.sum(losses) / jnp.minimum(eval_every, steps - first)

        # Seeds are mapped inside and rows outside, which then share their data.
        self._start = jax.jit(
            jax.vmap(jax.vmap(start, (0, None, 0)), (None, 0, None)),
            out_shardings=sharding,
        )
        self._advance = jax.jit(
            jax.vmap(
                jax.vmap(advance, (0, None, 0, 0, None, None)),
                (0, 0, None, None, None, None),
            ),
            out_shardings=sharding,
            donate_argnums=0,
        )

    def compile(self, values: Any, seeds: jax.Array) -> tuple[int, float]:
        """Compiles for these shapes; `run` finds what was compiled.

        Returns:
          The bytes a device needs at once, and those of the optimizer's state for each
          parameter.
        """
        first = jnp.int32(0)
        init = jax.eval_shape(self._task.init, seeds)
        plan = jax.eval_shape(self._task.plan, seeds, first)
        params, state = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(  # type: ignore[no-untyped-call]
                x.shape, x.dtype, sharding=self._sharding
            ),
            jax.eval_shape(self._start, init, values, seeds),
        )
        lowered = (
            self._advance.lower((params, state), values, seeds, plan, first, first),
            self._task.evaluate.lower(params),
            self._task.plan.lower(seeds, first),
            self._task.init.lower(seeds),
            self._start.lower(init, values, seeds),
        )
        advance, evaluate, *_ = (_bytes(program.compile()) for program in lowered)
        devices = 1 if self._sharding is None else self._sharding.num_devices
        state_bytes = sum(s.size * s.dtype.itemsize for s in jax.tree.leaves(state))
        parameters = sum(p.size for p in jax.tree.leaves(params))
        # While parameters are evaluated, the state is there too.
        needed = max(advance, evaluate + state_bytes // devices)
        return needed, state_bytes / parameters

    def run(
        self,
        values: Any,
        seeds: jax.Array,
        steps: int,
        report: Callable[[int], object],
    ) -> Measured:
        """Runs the trials and reports the steps done after each evaluation."""
        started = time.perf_counter()
        carry = self._start(self._task.init(seeds), values, seeds)
        rows, losses = [_fetch(self._task.evaluate(carry[0]))], []
        for number in range(0, steps, self._eval_every):
            first = jnp.int32(number)
            plan = self._task.plan(seeds, first)
            carry, loss = self._advance(
                carry, values, seeds, plan, first, jnp.int32(steps)
            )
            rows.append(_fetch(self._task.evaluate(carry[0])))
            losses.append(_fetch(loss))
            report(min(number + self._eval_every, steps))
        return Measured(
            jax.tree.map(lambda *x: np.stack(x, axis=-1), *rows),
            np.stack(losses, axis=-1),
            time.perf_counter() - started,
        )


_task_programs = lru_cache(maxsize=8)(_TaskPrograms)
_trials = lru_cache(maxsize=8)(Trials)


def trials_of(
    task: Task,
    make_optimizer: MakeOptimizer,
    eval_every: int,
    sharding: NamedSharding | None,
) -> Trials:
    """Trials, the same as the last time if that is not long ago."""
    try:
        hash(make_optimizer)
    except TypeError:
        return Trials(task, make_optimizer, eval_every, sharding)
    return _trials(task, make_optimizer, eval_every, sharding)


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

"""Compiled programs that run many trials of a task at once."""

import dataclasses
import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from jax.stages import Compiled

from optax_extras._core.factories import MakeOptimizer, keyed
from optax_extras.tasks import Task
from optax_extras.tuning._points import Points
from optax_extras.tuning._recorded import arrays_of, check_names, scalars
from optax_extras.tuning._trial import descend, initial_carry, keys_of_seed
from optax_extras.tuning._workers import Workers


class Measured(NamedTuple):
    """Measurements of R rows of trials, and the time that they took."""

    metrics: dict[str, np.ndarray[Any, Any]]  # each (rows, seeds, evaluations)
    recorded: dict[str, np.ndarray[Any, Any]]  # the same, by names of `record`
    losses: np.ndarray[Any, Any]  # (rows, seeds, evaluations − 1)
    initial_losses: np.ndarray[Any, Any]  # (rows, seeds)
    seconds: float


@dataclasses.dataclass(frozen=True)
class CompiledTrials:
    """Programs compiled for some numbers of rows and seeds.

    Attributes:
      init: maps seeds to initial parameters.
      plan: maps seeds and a first step to the plan of the next mini-batches.
      start: maps parameters, hyperparameters and seeds to the carry of the scan.
      advance: runs ``eval_every`` steps, and returns the carry, their mean loss and the
        first of their losses; its first argument, the carry, is donated.
      point: maps state and parameters to the point that is evaluated; None if that is
        the parameters.
      evaluate: maps a point to metrics.
      evaluator: the device that evaluates; None for all that have rows.
      eval_every: steps between evaluations.
      bytes_needed: peak memory on each device.
      state_bytes_per_parameter: size of the optimizer's state.
    """

    init: Compiled
    plan: Compiled
    start: Compiled
    advance: Compiled
    point: Compiled | None
    evaluate: Compiled
    evaluator: jax.Device | None
    eval_every: int
    bytes_needed: int
    state_bytes_per_parameter: float

    def run(
        self,
        values: Any,
        seeds: jax.Array,
        steps: int,
        report: Callable[[int], object],
    ) -> Measured:
        """Runs all trials.

        Args:
          values: hyperparameters by name, with the rows along their axis.
          seeds: the seeds.
          steps: steps of each trial.
          report: called after each evaluation with the number of steps done.
        """
        started = time.perf_counter()
        carry = self.start(self.init(seeds), values, seeds)
        measured, losses, firsts = [self._measure(*carry)], [], []
        for number in range(0, steps, self.eval_every):
            first = jnp.int32(number)
            plan = self.plan(seeds, first)
            carry, loss, first_loss = self.advance(
                carry, values, seeds, plan, first, jnp.int32(steps)
            )
            measured.append(self._measure(*carry))
            losses.append(_fetch(loss))
            firsts.append(first_loss)
            report(min(number + self.eval_every, steps))
        metrics, recorded = jax.tree.map(lambda *x: np.stack(x, axis=-1), *measured)
        return Measured(
            metrics,
            recorded,
            np.stack(losses, axis=-1),
            _fetch(firsts[0]),
            time.perf_counter() - started,
        )

    def _measure(self, params: Any, state: Any) -> Any:
        """Metrics of all trials and what they recorded, on the host."""
        point = params if self.point is None else self.point(state, params)
        if self.evaluator is not None:
            point = jax.device_put(point, self.evaluator)
        recorded = scalars(_fetch(arrays_of(state)))
        return _fetch(self.evaluate(point)), recorded


class _TaskPrograms:
    """Programs that do not depend on the optimizer, compiled once for all of them."""

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
        # `lax.map` over rows, because each row needs memory for all the data.
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
    """Programs for all pairs of a row of hyperparameters and a seed.

    Values of hyperparameters and seeds are arguments of the programs, so that only
    their numbers lead to another compilation.
    """

    def __init__(
        self,
        task: Task,
        make_optimizer: MakeOptimizer,
        eval_every: int,
        sharding: NamedSharding | None,
        points: Points,
        workers: Workers | None = None,
    ):
        """Compiles nothing yet; `sharding` is that of the rows."""
        self._eval_every, self._sharding = eval_every, sharding
        self._points, self._workers = points, workers
        # All workers have all rows, and one of them evaluates them.
        self._rows = rows = sharding if workers is None else None
        self._evaluator = None if workers is None else workers.mesh.devices.flat[0]
        self._task = _task_programs(task, eval_every, rows)

        def start(params: Any, values: Any, seed: jax.Array) -> Any:
            make = keyed(make_optimizer, keys_of_seed(seed).optimizer)
            return initial_carry(make(**values), params, workers)

        def advance(
            carry: Any, values: Any, seed: jax.Array, plan: Any, first: Any, steps: Any
        ) -> Any:
            keys = keys_of_seed(seed)
            tx = keyed(make_optimizer, keys.optimizer)(**values)
            step = partial(descend, task, tx, keys, points, workers=workers)

            def guarded(carry: Any, entry: Any) -> Any:
                # A shorter last segment runs the same program, with idle steps.
                inside = entry[0] < steps
                return jax.lax.cond(
                    inside, step, lambda carry, _: (carry, jnp.zeros(())), carry, entry
                )

            numbers = first + jnp.arange(eval_every, dtype=jnp.int32)
            carry, losses = jax.lax.scan(guarded, carry, (numbers, plan))
            mean = jnp.sum(losses) / jnp.minimum(eval_every, steps - first)
            return carry, mean, losses[0]

        # Seeds are the inner axis: all rows share the initial parameters and the plan.
        all_start = jax.vmap(jax.vmap(start, (0, None, 0)), (None, 0, None))
        all_advance = jax.vmap(
            jax.vmap(advance, (0, None, 0, 0, None, None)),
            (0, 0, None, None, None, None),
        )

        def placed_advance(*arguments: Any) -> Any:
            carry, *losses = all_advance(*arguments)
            return self._placed(carry), *losses

        self._start = jax.jit(
            lambda *arguments: self._placed(all_start(*arguments)), out_shardings=rows
        )
        self._advance = jax.jit(placed_advance, out_shardings=rows, donate_argnums=0)
        self._point = jax.jit(
            jax.vmap(jax.vmap(points.of_evaluation)), out_shardings=sharding
        )

    def _shardings(self, carry: Any) -> Any:
        """Where a carry is."""
        if self._workers is None:
            return jax.tree.map(lambda _: self._sharding, carry)
        return self._workers.shardings(carry)

    def _placed(self, carry: Any) -> Any:
        """A carry, of which each worker keeps its own part."""
        if self._workers is None:
            return carry
        return jax.lax.with_sharding_constraint(carry, self._shardings(carry))

    def compile(self, values: Any, seeds: jax.Array) -> CompiledTrials:
        """Compiles for the shapes of the arguments; JAX caches what it compiled."""
        first = jnp.int32(0)
        init = jax.eval_shape(self._task.init, seeds)
        plan = jax.eval_shape(self._task.plan, seeds, first)
        shapes = jax.eval_shape(self._start, init, values, seeds)
        params, state = carry = jax.tree.map(
            lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
            shapes,
            self._shardings(shapes),
        )
        evaluated = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._rows),
            jax.eval_shape(self._point, state, params),
        )
        metrics = jax.eval_shape(self._task.evaluate, evaluated)
        check_names(state, metrics, values)
        point, kept = None, _size(state)
        if self._points.evaluated_elsewhere(state):
            point = self._point.lower(state, params).compile()
            kept += _size(params)
        advance = self._advance.lower(carry, values, seeds, plan, first, first)
        programs = {
            "advance": advance.compile(),
            "evaluate": self._task.evaluate.lower(evaluated).compile(),
            "plan": self._task.plan.lower(seeds, first).compile(),
            "init": self._task.init.lower(seeds).compile(),
            "start": self._start.lower(init, values, seeds).compile(),
        }
        devices = 1 if self._sharding is None else self._sharding.num_devices
        return CompiledTrials(
            **programs,
            point=point,
            evaluator=self._evaluator,
            eval_every=self._eval_every,
            # What training goes on with stays in memory during the evaluation.
            bytes_needed=max(
                _bytes(programs["advance"]),
                _bytes(point),
                _bytes(programs["evaluate"]) + kept // devices,
            ),
            state_bytes_per_parameter=_size(state)
            / sum(p.size for p in jax.tree.leaves(evaluated)),
        )


_task_programs = lru_cache(maxsize=8)(_TaskPrograms)
_trials = lru_cache(maxsize=8)(Trials)


def trials_of(
    task: Task,
    make_optimizer: MakeOptimizer,
    eval_every: int,
    sharding: NamedSharding | None,
    points: Points,
    workers: Workers | None = None,
) -> Trials:
    """Cached `Trials` (LRU, 8), if the optimizer's functions can be hashed."""
    arguments = task, make_optimizer, eval_every, sharding, points, workers
    try:
        hash((make_optimizer, points))
    except TypeError:
        return Trials(*arguments)
    return _trials(*arguments)


def _size(tree: Any) -> int:
    """Bytes of the arrays of a tree."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _bytes(compiled: Compiled | None) -> int:
    """Peak memory of a program on each device, its arguments included."""
    if compiled is None:
        return 0
    stats: Any = compiled.memory_analysis()
    sizes = (
        stats.argument_size_in_bytes,
        stats.output_size_in_bytes,
        stats.temp_size_in_bytes,
        -stats.alias_size_in_bytes,
    )
    return sum(sizes)


def _fetch(tree: Any) -> Any:
    """Arrays on the host, gathered from all processes."""

    def leaf(x: jax.Array) -> np.ndarray[Any, Any]:
        if x.is_fully_addressable or x.is_fully_replicated:
            return np.asarray(x)
        gathered: np.ndarray[Any, Any] = multihost_utils.process_allgather(
            x, tiled=True
        )
        return gathered

    return jax.tree.map(leaf, tree)

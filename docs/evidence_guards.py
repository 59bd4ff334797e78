"""Writes a section of docs/evidence.md: false alarms, and steps lost after a bad batch.

Run from the repository, with the `cli` extra: ``python docs/evidence_guards.py``. It
takes about three minutes on two cores. Every number comes from here. The rules of
MaxText and Levanter are written down again, from what their sources do in August 2026.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from study import table, write_section

import optax_extras as ox
from optax_extras.tasks import Task, characters, digits

SEEDS, STEPS = 20, 300
WINDOWS = 32, 64, 128
WARMUP, THRESHOLD, FLOOR = 32, 6.0, 0.2
# The step of the bad batch, and the spikes of the last column.
BAD, LENGTH = 150, 350
SPIKES = range(150, 250, 10)
NEVER = -1

Optimizer = optax.GradientTransformationExtraArgs


class Rolling(NamedTuple):
    """State of `rolling_rule`."""

    count: jax.Array
    window: jax.Array  # norms and losses of all steps; float32[2, n]
    inner_state: Any


def rolling_rule(
    inner: Optimizer, size: int = 128, *, multiplies: bool, ddof: int
) -> Optimizer:
    """Skips what is above the mean of all last steps plus six of their deviations.

    Args:
      inner: the optimizer.
      size: steps in the window.
      multiplies: whether a skipped update is the inner one times 0, or else zeros.
      ddof: of the standard deviation.
    """

    def init(params: Any) -> Rolling:
        window = jnp.zeros((2, size))
        return Rolling(jnp.zeros((), jnp.int32), window, inner.init(params))

    def update(
        updates: Any, state: Rolling, params: Any = None, *, value: Any
    ) -> tuple[Any, Rolling]:
        now = jnp.stack([optax.tree.norm(updates), value])
        filled = jnp.minimum(state.count, size)
        known = jnp.broadcast_to(jnp.arange(size)[None] >= size - filled, (2, size))
        mean = jnp.mean(state.window, 1, where=known)
        number = jnp.maximum(filled - ddof, 1)
        square = jnp.where(known, (state.window - mean[:, None]) ** 2, 0).sum(1)
        deviation = jnp.maximum(jnp.sqrt(square / number), 1e-6)
        is_usual = jnp.all(now - mean <= THRESHOLD * deviation)
        taken = is_usual | (state.count < size // 2)
        new, inner_state = inner.update(updates, state.inner_state, params)
        zero = (lambda u: 0.0 * u) if multiplies else jnp.zeros_like

        def chosen(x: Any, y: Any) -> Any:
            return jnp.where(taken, x, y)

        window = jnp.concatenate([state.window[:, 1:], now[:, None]], 1)
        return jax.tree.map(chosen, new, jax.tree.map(zero, new)), Rolling(
            state.count + 1,
            window,
            jax.tree.map(chosen, inner_state, state.inner_state),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def maxtext(inner: Optimizer, size: int = 128) -> Optimizer:
    """The rule of MaxText: select, and the deviation of a sample."""
    return rolling_rule(inner, size, multiplies=False, ddof=1)


def levanter(inner: Optimizer) -> Optimizer:
    """The rule of Levanter: the update times 0, and the deviation of the window."""
    return rolling_rule(inner, multiplies=True, ddof=0)


class Run(NamedTuple):
    """What is recorded of each step."""

    norm: jax.Array
    loss: jax.Array
    moved: jax.Array  # whether the parameters changed, and all are finite


def trained(
    task: Task, tx: Optimizer, seed: Any, steps: int, factor: Callable[[Any], Any]
) -> Run:
    """A run whose gradients are multiplied by `factor(step)`."""
    first, order, noise = jax.random.split(jax.random.key(seed), 3)
    params = task.init(first)
    plan = task.batches.plan(order, jnp.int32(0), steps)

    def body(carry: Any, entry: Any) -> Any:
        params, state = carry
        step, rows = entry
        key = jax.random.fold_in(noise, step)
        loss, grads = jax.value_and_grad(task.loss)(
            params, task.batches.take(rows), key
        )
        scale = factor(step)
        grads = jax.tree.map(lambda g: g * scale, grads)
        updates, state = tx.update(grads, state, params, value=loss)
        new = optax.apply_updates(params, updates)
        pairs = list(zip(jax.tree.leaves(params), jax.tree.leaves(new), strict=True))
        changed = jnp.array([jnp.any(x != y) for x, y in pairs]).any()
        finite = jnp.array([jnp.isfinite(y).all() for _, y in pairs]).all()
        run = Run(optax.tree.norm(grads), loss, changed & finite)
        return (new, state), run

    entries = jnp.arange(steps), plan
    _, run = jax.lax.scan(body, (params, tx.init(params)), entries)
    return run


def clean(task: Task, inner: Optimizer) -> Run:
    """Runs of all seeds at the defaults, without anything bad."""
    tx = ox.skip_spikes(inner)

    def one(seed: Any) -> Run:
        return trained(task, tx, seed, STEPS, lambda step: 1.0)

    return jax.jit(lambda seeds: jax.lax.map(one, seeds))(jnp.arange(SEEDS))


def scores(values: np.ndarray, window: int, spike: float) -> np.ndarray:
    """The z of each step from the warm-up on, if its value were so many times larger.

    Args:
      values: of all steps of several runs, all of which were taken.
      window: steps in the window.
      spike: the factor.
    """
    found = []
    for t in range(WARMUP, values.shape[1]):
        past = values[:, max(0, t - window) : t]
        median = np.median(past, 1)
        spread = 1.4826 * np.median(np.abs(past - median[:, None]), 1)
        scale = np.maximum(spread, FLOOR * np.abs(median))
        found.append((spike * values[:, t] - median) / scale)
    return np.stack(found, 1)


def alarms() -> list[str]:
    """Lines of the table of clean runs."""
    adam, sgd = optax.adam, optax.sgd
    tasks = {
        digits(): {
            "Adam, 0.01": adam(0.01),
            "SGD with momentum 0.9, 0.1": sgd(0.1, momentum=0.9),
        },
        characters(): {"Adam, 0.005": adam(0.005), "SGD, 1": sgd(1.0)},
    }
    rows = []
    for task, optimizers in tasks.items():
        for label, inner in optimizers.items():
            run = jax.tree.map(np.asarray, clean(task, inner))
            count = SEEDS * STEPS
            lost = int(np.sum(~run.moved))
            cells = []
            for window in WINDOWS:
                own = [scores(x, window, 1.0) for x in (run.norm, run.loss)]
                false = (np.maximum(*own) > THRESHOLD).sum() / count * 1000
                seen = (scores(run.norm, window, 10.0) > THRESHOLD).mean()
                cells.append(f"{false:.2f}, {seen:.0%}")
            rows.append([task.name, label, f"{lost} of {count}", *cells])
    head = ["task", "optimizer", "steps left out at the defaults"]
    return table([*head, *(f"window {w}" for w in WINDOWS)], rows)


def bad_runs(task: Task, tx: Optimizer) -> jax.Array:
    """Which steps moved the parameters: of clean runs, with NaN, a spike, several."""
    cases = [(NEVER, 1.0, False), (BAD, np.nan, False), (BAD, 10.0, False)]
    cases.append((NEVER, 10.0, True))

    def one(case: Any) -> jax.Array:
        bad, factor, several = case

        def factors(step: Any) -> jax.Array:
            is_bad = (step == bad) | several & jnp.isin(step, jnp.array(SPIKES))
            return jnp.where(is_bad, factor, 1.0)

        return trained(task, tx, 0, LENGTH, factors).moved

    arguments = tuple(map(jnp.array, zip(*cases, strict=True)))
    return jax.jit(lambda cases: jax.lax.map(one, cases))(arguments)


def losses() -> list[str]:
    """Lines of the table of bad batches."""
    adam = optax.with_extra_args_support(optax.adam(0.005))
    guards = {
        "none": adam,
        "`skip_spikes`": ox.skip_spikes(adam),
        "rule of MaxText, window 20": maxtext(adam, 20),
        "rule of MaxText, window 128": maxtext(adam),
        "rule of Levanter": levanter(adam),
        "`optax.apply_if_finite`": optax.apply_if_finite(adam, 5),
        "`clip_by_zscore`": optax.chain(ox.clip_by_zscore(), adam),
        "`clip_by_percentile`": optax.chain(ox.clip_by_percentile(), adam),
    }
    task = characters()
    rows = []
    for name, guard in guards.items():
        moved = np.asarray(bad_runs(task, optax.with_extra_args_support(guard)))
        still = ~moved
        ended = bool(still[1, BAD:].all())
        nan = "all: parameters are not finite" if ended else str(still[1].sum())
        of_ten = int(still[3, list(SPIKES)].sum())
        rows.append(
            [name, str(still[0].sum()), nan, str(still[2].sum()), f"{of_ten} of 10"]
        )
    head = ["guard", "without anything bad", "after one NaN", "after one spike"]
    return table([*head, "spikes left out, of ten"], rows)


def section() -> list[str]:
    """Lines of the section."""
    return [
        "## Spikes and NaN",
        "",
        "`python docs/evidence_guards.py` writes this section. First, clean runs:"
        f" {SEEDS} seeds of {STEPS} steps for each row, with `skip_spikes` at its"
        " defaults and the loss passed to it. Each step that is left out is a false"
        " alarm; at most 1 in 1000 is the aim. The last columns say, for several"
        " windows, how many false alarms there are in 1000 steps, and in how many"
        " steps a gradient ten times as large as it was would have been seen. While"
        " the norms fall fast, as in the overfitted digits, a long window still holds"
        " the large ones, and hides a spike.",
        "",
        *alarms(),
        "",
        f"Then, bad batches in {LENGTH} steps of Adam on `characters`: the gradient of"
        f" step {BAD} is NaN, or ten times as large; and, in another run, those of ten"
        f" steps from {SPIKES[0]} on, {SPIKES.step} apart, are ten times as large. The"
        " numbers are steps in which the parameters did not change. The rules of"
        " MaxText and Levanter keep the mean and standard deviation of the last 128"
        " norms and losses, bad ones among them: a NaN makes all comparisons false"
        " until it has left the window, and a spike widens the limit for the next."
        " Levanter multiplies what it leaves out by 0, which for NaN is NaN.",
        "",
        *losses(),
    ]


def main() -> None:
    """Writes the section."""
    write_section("evidence_guards", section())


if __name__ == "__main__":
    main()

"""What the section on relatives measures of a method."""

from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_extras.tasks import Goal, quadratic

DOCS = Path(__file__).parent.parent / "docs"
if not DOCS.exists():
    pytest.skip("needs the repository's documents", allow_module_level=True)


def fake(first, last, mode="min", steps=300, metric="value"):
    """A study of one method, with values of each seed."""
    curves = np.stack([first, last], axis=1)[None]
    result = SimpleNamespace(
        curves=lambda metric: curves, final=lambda metric: curves[..., -1]
    )
    task = SimpleNamespace(goal=Goal(metric, mode))
    return SimpleNamespace(task=task, steps=steps, methods={"one": None}), result


@pytest.mark.parametrize(
    ("name", "last", "mode", "expected"),
    [
        ("quadratic", [1e-3, 0.1, 1.0, 2.0, np.nan], "min", [100, 300] + [np.inf] * 3),
        ("quadratic", [0.0], "min", [300 / -np.log10(np.finfo(np.float32).tiny)]),
        ("digits", [0.5, np.inf], "min", [0.5, np.inf]),
        ("cart-pole", [50.0, np.nan], "max", [50, -np.inf]),
    ],
)
def test_what_is_compared(documents, monkeypatch, name, last, mode, expected):
    script = documents("relatives_measures")
    found, result = fake(np.ones(len(last)), np.array(last), mode)
    monkeypatch.setattr(script, "fresh", lambda found, method: result)
    scores = script.scores(name, found, "one")
    np.testing.assert_allclose(scores, expected)


def test_an_accuracy_is_judged_by_its_error(documents, monkeypatch):
    script = documents("relatives_measures")
    last = np.array([0.75, np.nan])
    found, result = fake(np.ones(2), last, "max", metric="validation_accuracy")
    monkeypatch.setattr(script, "fresh", lambda found, method: result)
    goal = script.goal_of("digits", found)
    assert (goal.metric, goal.mode) == ("validation_error", "min")
    assert script.scores("digits", found, "one").tolist() == [0.25, np.inf]
    assert script.ratios("digits", found, "one", 0.125).tolist() == [2, np.inf]


def test_medians_at_a_rate_of_the_grid(documents, monkeypatch):
    script, methods = documents("relatives_measures"), documents("relatives_methods")
    grid = methods.TASKS["digits"].grid()
    values = np.arange(float(len(grid)))[:, None] * np.ones(3)
    swept = SimpleNamespace(final=lambda metric: values)
    monkeypatch.setattr(script, "tuned", lambda found, method: swept)
    found, _ = fake(np.ones(1), np.ones(1))
    assert script.median_at("digits", found, "one", grid[4]) == 4


def test_starts_of_rosenbrock_differ_from_seed_to_seed(documents):
    task = documents("relatives_methods").rosenbrock()
    one, two = (task.init(jax.random.key(seed)) for seed in (0, 1))
    assert float(jnp.abs(one - two).min()) > 1e-3
    assert float(jnp.abs(one - jnp.array([-1.2, 1.0])).max()) < 0.5


def test_ratios_are_above_1_where_a_method_is_worse(documents, monkeypatch):
    script = documents("relatives_measures")
    monkeypatch.setattr(script, "scores", lambda *_: np.array([2.0, 4.0]))
    low, high = (fake(np.ones(2), np.ones(2), mode)[0] for mode in ("min", "max"))
    assert script.ratios("digits", low, "one", 2.0).tolist() == [1, 2]
    assert script.ratios("cart-pole", high, "one", 4.0).tolist() == [2, 1]


@pytest.mark.parametrize(
    ("metric", "mode", "medians", "expected"),
    [
        ("loss", "min", [3.0, 2.2, 2.0], 0.1),
        ("return", "max", [-8.0, -8.0, -10.0], 0.25),
        ("return", "max", [-1.0, -2.0, -1.0], 0),
        ("accuracy", "max", [-0.7, -0.6, -0.8], 1),
    ],
)
def test_what_the_choice_of_a_rate_costs(
    documents, monkeypatch, metric, mode, medians, expected
):
    """In the second place of three, by the factor of a ratio."""
    measures, script = documents("relatives_measures"), documents("evidence_relatives")
    swept = SimpleNamespace(scores=lambda metric: np.array(medians), best_row=lambda: 1)
    monkeypatch.setattr(measures, "tuned", lambda found, method: swept)
    goal = Goal(f"validation_{metric}", mode, f"test_{metric}")
    task = SimpleNamespace(goal=goal)
    found = SimpleNamespace(task=task, methods=["one"])
    assert measures.miss("digits", found, "one") == pytest.approx(expected)
    alone = SimpleNamespace(task=SimpleNamespace(goal=Goal("value")), methods=["one"])
    text = script.misses({"digits": found, "cart-pole": alone})
    assert f"more than 1% for {int(expected > 0)} of 1 methods" in text
    assert f"at most {expected:.0%} (one on digits)" in text


def test_a_restart_by_value_is_told_the_loss(documents):
    methods = documents("relatives_methods")
    task = quadratic(4, 10.0)
    tx = methods.told_the_loss(methods.restarted("value"), task)(0.5)
    params = task.init(jax.random.key(0))
    state, value, rises = tx.init(params), jnp.inf, 0
    for _ in range(40):
        before, value = value, task.loss(params, None, None)
        rises += int(value > before)
        gradient = jax.grad(task.loss)(params, None, None)
        updates, state = tx.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    assert int(state.restarts) == rises > 0

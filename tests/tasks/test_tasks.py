"""Bundled tasks: their functions, data and arguments, and that they can be trained."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import optimize

from optax_extras import tasks
from optax_extras.tasks import TASKS, Goal, Task, load_task, quadratic

from plain_loop import train

# Enough to lower each loss by a tenth.
SETTINGS = {
    "characters": (optax.adam(0.01), 60),
    "rosenbrock": (optax.adam(0.02), 60),
    "jumping-quadratic": (optax.sgd(1.0), 60),
    "cart-pole": (optax.adam(0.01), 40),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_every_task_can_be_trained(name):
    task = load_task(name)
    tx, steps = SETTINGS.get(name, (optax.sgd(0.05), 100))
    metrics = train(task, tx, steps=steps)
    if name == "jumping-quadratic":  # it starts at 0 and follows the minimum
        before, after = metrics["size"]
        assert before == 0 < after
    elif name == "cart-pole":
        before, after = metrics["test_return"]
        assert after > 2 * before
    else:
        losses = metrics["value" if "value" in metrics else "train_loss"]
        assert losses[1] < 0.9 * losses[0]
    for values in metrics.values():
        assert np.isfinite(values).all()


@pytest.mark.parametrize(
    ("name", "lowest"), [("breast-cancer", 0.04), ("diabetes", 0.2)]
)
def test_regressions_reach_the_minimum_that_scipy_finds(name, lowest):
    task = {"breast-cancer": tasks.breast_cancer, "diabetes": tasks.diabetes}[name](
        None
    )
    key = jax.random.key(0)
    start, unravel = jax.flatten_util.ravel_pytree(task.init(key))
    batch = task.batches.take(task.batches.plan(key, jnp.int32(0), 1)[0])

    @jax.jit
    def value_and_grad(x):
        return jax.value_and_grad(lambda x: task.loss(unravel(x), batch, key))(x)

    found = optimize.minimize(
        lambda x: [np.float64(v) for v in value_and_grad(jnp.float32(x))],
        start,
        jac=True,
    )
    metrics = train(task, optax.sgd(0.3, momentum=0.9), steps=1000)
    assert metrics["train_loss"][-1] == pytest.approx(found.fun, rel=0.02)
    assert lowest < found.fun < 2 * lowest


def test_the_gru_is_the_cell_of_the_paper():
    task = tasks.characters(batch_size=2, length=3, width=4, text_size=2000)
    key = jax.random.key(0)
    params = jax.jit(task.init)(key)
    batch = task.batches.take(task.batches.plan(key, jnp.int32(0), 1)[0])
    p = {k: np.float64(v) for k, v in params.items()}
    state, losses = np.zeros((2, 4)), []
    for t in range(3):
        x = p["embedding"][batch[:, t]]
        w, u = np.split(p["input"], 3, axis=1), np.split(p["recurrent"], 3, axis=1)
        z, r = (1 / (1 + np.exp(-(x @ w[i] + state @ u[i]))) for i in (0, 1))
        candidate = np.tanh(x @ w[2] + r * (state @ u[2]))
        state = (1 - z) * state + z * candidate
        logits = state @ p["output"]
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        losses.append(-logits[np.arange(2), batch[:, t + 1]])
    assert float(jax.jit(task.loss)(params, batch, key)) == pytest.approx(
        np.mean(losses), 1e-5
    )


def test_quadratics_have_their_condition():
    task = tasks.quadratic(5, 50.0)
    hessian = jax.hessian(task.loss)(jnp.ones(5), None, None)
    np.testing.assert_allclose(
        np.linalg.eigvalsh(hessian), np.geomspace(0.02, 1, 5), rtol=1e-5
    )
    x = task.init(jax.random.key(0))
    assert float(jnp.linalg.norm(x)) == pytest.approx(1)


def test_the_noise_of_the_noisy_quadratic_is_in_its_gradient():
    task = tasks.noisy_quadratic(1000, deviation=0.3)
    zero = jnp.zeros(1000)
    plan = task.batches.plan(jax.random.key(0), jnp.int32(0), 2)
    batches = jax.vmap(task.batches.take)(plan)
    first, second = (jax.grad(task.loss)(zero, b, None) for b in batches)
    for gradient in (first, second):
        assert float(jnp.std(gradient)) == pytest.approx(0.3, rel=0.15)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.2


def test_the_minimum_jumps_and_stays():
    task = tasks.jumping_quadratic(3, every=10)
    plan = task.batches.plan(jax.random.key(0), jnp.int32(0), 30)
    centres = jax.vmap(task.batches.take)(plan)
    changes = np.any(np.diff(centres, axis=0) != 0, axis=1)
    assert np.flatnonzero(changes).tolist() == [9, 19]


def test_the_line_is_found():
    metrics = train(tasks.line(), optax.sgd(0.02), steps=100)
    assert metrics["slope"][-1] == pytest.approx(2, abs=1e-3)
    assert metrics["value"][0] == pytest.approx(30)


def test_arguments_of_a_task():
    assert load_task("quadratic", dimensions=3).init(jax.random.key(0)).shape == (3,)
    with pytest.raises(ValueError, match="task 'line' does not take `batch_size`"):
        load_task("line", batch_size=3)
    with pytest.raises(ValueError, match=r"test_tasks:TASK' does not take `x`"):
        load_task(f"{__name__}:TASK", x=3)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_named_as_in_the_catalogue(name):
    assert load_task(name).name == name


@pytest.mark.parametrize(
    ("of", "options", "name"),
    [
        ("digits", {"batch_size": 128, "wrong_labels": 0}, "digits"),
        ("digits", {"wrong_labels": 0.1}, "digits(wrong_labels=0.1)"),
        ("digits", {"wrong_labels": np.float32(0.5)}, "digits(wrong_labels=0.5)"),
        ("digits-softmax", {"wrong_labels": 0.3}, "digits-softmax(wrong_labels=0.3)"),
        ("digits-wrong-labels", {"hidden": 8}, "digits-wrong-labels(hidden=8)"),
        ("federated-digits", {"clients": 4}, "federated-digits(clients=4)"),
        ("federated-digits", {"concentration": 1}, "federated-digits-mild"),
        ("federated-digits-mild", {"hidden": 8}, "federated-digits-mild(hidden=8)"),
        ("diabetes", {"batch_size": None}, "diabetes(batch_size=None)"),
        ("quadratic", {"condition": 10.0}, "quadratic(condition=10.0)"),
        ("cart-pole", {"episodes": 4, "horizon": 9}, "cart-pole(horizon=9)"),
    ],
)
def test_options_are_told_apart_by_the_name(of, options, name):
    assert load_task(of, **options).name == name


TASK = tasks.line()


def test_a_users_own_task(tmp_path, monkeypatch):
    (tmp_path / "mine_tasks.py").write_text(
        "from optax_extras.tasks import line\nTASK = line()\nNOT = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    assert isinstance(load_task("mine_tasks:TASK"), Task)
    assert load_task("optax_extras.tasks:line").name == "line"
    for name, message in (
        ("mine_tasks:NOT", "task 'mine_tasks:NOT' must be a Task, got 3"),
        ("mine_tasks:ABSENT", "cannot load 'mine_tasks:ABSENT'"),
        ("absent_module:x", "cannot load 'absent_module:x'"),
        ("absent", "must be MODULE:ATTRIBUTE or one of digits, .*; got 'absent'"),
    ):
        with pytest.raises(ValueError, match=message):
            load_task(name)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (tasks.quadratic, {"dimensions": 1}, "`dimensions` must be >= 2, got 1"),
        (tasks.quadratic, {"condition": 0.5}, "`condition` must be finite and >= 1"),
        (tasks.noisy_quadratic, {"deviation": -1}, "`deviation` must be >= 0, got -1"),
        (tasks.jumping_quadratic, {"every": 0}, "`every` must be >= 1, got 0"),
        (tasks.cart_pole, {"episodes": 1}, "`episodes` must be >= 2, got 1"),
        (tasks.cart_pole, {"horizon": 0}, "`horizon` must be >= 1 .*got 0"),
        (tasks.cart_pole, {"hidden": -1}, "`hidden` must be >= 1 .*got -1"),
        (tasks.breast_cancer, {"penalty": -1}, "`penalty` must be >= 0, got -1"),
        (tasks.breast_cancer, {"batch_size": 320}, r"must be in \[1, 319\], got 320"),
        (tasks.diabetes, {"batch_size": 0}, r"must be in \[1, 248\], got 0"),
        (tasks.characters, {"length": 0}, "`length` must be >= 1, got 0"),
        (tasks.characters, {"batch_size": 4849}, r"must be in \[1, 4848\], got 4849"),
        (tasks.characters, {"text_size": 9}, "10 sequences of `length` 32, got 9"),
    ],
)
def test_bad_arguments(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 3}, "`name` of a Task must be a str, got 3"),
        ({"goal": "value"}, "`goal` of a Task must be a Goal, got 'value'"),
        ({"batches": [1]}, r"`batches` of a Task must be a Batches, got \[1\]"),
        ({"evaluate": None}, "`evaluate` of a Task must be a Callable, got None"),
    ],
)
def test_a_task_names_what_is_of_another_type(changes, message):
    with pytest.raises(TypeError, match=message):
        dataclasses.replace(quadratic(), **changes)


def test_a_goal_reports_the_metric_that_chooses_unless_told():
    assert Goal("value").reported == "value"
    assert Goal("validation_loss", reported="test_loss").metric == "validation_loss"
    with pytest.raises(TypeError, match="`metric` must be the name of a metric, got 3"):
        Goal(3)
    with pytest.raises(ValueError, match="`mode` must be 'min' or 'max', got 'least'"):
        Goal("value", "least")

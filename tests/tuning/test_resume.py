"""Files of sweeps: whole or refused, and of the very sweep that goes on."""

import functools
import json
import random
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_extras as ox
from optax_extras.tuning import Goal, SweepResult, Task, _files, batches_of_step, sweep
from optax_extras.tuning._fingerprint import fingerprint
from optax_extras.tuning._points import Points

GRID = {"learning_rate": [0.01, 0.02, 0.03]}


def plain(scale=1.0, dtype=jnp.float32, **changes):
    """A quadratic without noise."""
    parts = {
        "name": "plain",
        "init": lambda key: jax.random.normal(key, (4,)),
        "batches": batches_of_step(lambda key, step: jnp.zeros(4)),
        "loss": lambda x, batch, key: scale * jnp.sum(x**2),
        "evaluate": lambda x: {"m": jnp.sum(x**2).astype(dtype)},
        "goal": Goal("m"),
    }
    return Task(**{**parts, **changes})


TASK = plain()


def run(task=TASK, make=optax.sgd, **options):
    options = {"steps": 2, "seeds": 1, "trials_at_once": 1, **options}
    return sweep(task, make, GRID, **options)


def part(path, *arguments, **options):
    """The file of a sweep that ended after its first row."""

    def stop(done, total):
        if done > 2:
            raise KeyboardInterrupt

    run(*arguments, **options, resume=path, on_progress=stop)
    assert len(SweepResult.load(path).losses) == 1
    return path


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """The bytes of an unfinished sweep."""
    return part(tmp_path_factory.mktemp("sweep") / "sweep.npz").read_bytes()


def scaled(factor):
    return lambda learning_rate: optax.sgd(factor * learning_rate)


def noisy(key):
    return lambda learning_rate: ox.noisy_sgd(learning_rate, key=key)


def with_data(data):
    def loss(x, batch, key):
        return jnp.sum((x - batch) ** 2)

    batches = batches_of_step(lambda key, step: jnp.asarray(data))
    return plain(loss=loss, batches=batches)


def with_a_callback():
    """A metric whose function is printed with its address."""

    def same(x):
        return x

    return plain(evaluate=lambda x: {"m": jax.pure_callback(same, x[0], x[0])})


def fingerprint_of(task=TASK, make=optax.sgd):
    return fingerprint(task, make, Points(), {"learning_rate": 0.1})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((TASK, optax.sgd), (TASK, optax.adam)),
        ((TASK, scaled(1.0)), (TASK, scaled(2.0))),
        (
            (TASK, functools.partial(optax.sgd, momentum=0.9)),
            (TASK, functools.partial(optax.sgd, momentum=0.5)),
        ),
        ((TASK, noisy(1)), (TASK, noisy(2))),
        ((plain(scale=1.0),), (plain(scale=2.0),)),
        ((with_data(np.arange(4.0)),), (with_data(np.arange(4.0)[::-1]),)),
        ((TASK,), (plain(evaluate=lambda x: {"n": jnp.sum(x**2)}),)),
        ((TASK,), (plain(init=lambda key: jnp.zeros(4)),)),
    ],
    ids=["optimizer", "closure", "argument", "key", "loss", "data", "metrics", "init"],
)
def test_another_program_has_another_fingerprint(one, other):
    assert fingerprint_of(*one) != fingerprint_of(*other)


def test_the_same_program_made_again_has_the_same_fingerprint():
    assert fingerprint_of(plain(), scaled(2.0)) == fingerprint_of(plain(), scaled(2.0))
    assert fingerprint_of(plain(), noisy(1)) == fingerprint_of(plain(), noisy(1))
    twins = [with_a_callback() for _ in range(2)]
    assert fingerprint_of(twins[0]) == fingerprint_of(twins[1])
    assert fingerprint_of(with_data(np.ones(4))) == fingerprint_of(
        with_data(np.ones(4))
    )


def test_the_file_of_another_optimizer_is_refused(tmp_path):
    path = part(tmp_path / "sweep.npz")
    with pytest.raises(ValueError, match=r"its optimizer or its task.*sweep\.npz"):
        run(make=optax.adam, resume=path)
    resumed = run(plain(), resume=path)  # made again
    np.testing.assert_array_equal(resumed.losses, run().losses)


def test_damaged_files_are_refused_by_name(tmp_path, content):
    path = tmp_path / "damaged.npz"
    whole = tmp_path / "whole.npz"
    whole.write_bytes(content)
    expected = SweepResult.load(whole)
    rng = random.Random(0)
    damaged = [content[:n] for n in rng.sample(range(len(content)), 100)]
    for place in rng.sample(range(len(content)), 200):
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.randrange(8)
        damaged.append(bytes(flipped))
    messages = []
    for changed in [b"", b"text", *damaged]:
        path.write_bytes(changed)
        try:
            found = SweepResult.load(path)
        except ValueError as error:
            messages.append(str(error))
        else:  # a bit that no reader looks at, such as of a date
            np.testing.assert_equal(vars(found), vars(expected))
    assert all("damaged.npz" in message for message in messages)
    assert len(messages) > 270


def test_changed_arrays_are_refused(tmp_path, content):
    path = tmp_path / "changed.npz"
    path.write_bytes(content)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, "losses": arrays["losses"] + 1})
    with pytest.raises(ValueError, match=r"changed\.npz is damaged"):
        SweepResult.load(path)


class Hostile:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("code was run",))


def other_files():
    """Arrays that are no sweep."""
    whole = np.array(json.dumps({"format": -1}))
    return {
        "foreign": {"x": np.arange(3)},
        "pickle": {"head": np.array([Hostile()], object)},
        "version": {"head": whole, "digest": np.array(_files.digest({"head": whole}))},
    }


@pytest.mark.parametrize("name", ["foreign", "pickle", "version"])
def test_other_files_are_refused_by_name(tmp_path, name):
    path = tmp_path / "other.npz"
    np.savez(path, **other_files()[name])
    with pytest.raises(ValueError, match=r"other\.npz is not a sweep"):
        run(resume=path)


@pytest.mark.parametrize("path", ["folder", "nowhere/sweep.npz"])
def test_paths_that_take_no_file_are_refused_before_anything_runs(tmp_path, path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=path):
        run(resume=tmp_path / path, on_progress=lambda *_: pytest.fail("it ran"))


def test_a_failed_write_leaves_the_last_file_alone(tmp_path, content, monkeypatch):
    path = tmp_path / "sweep.npz"
    path.write_bytes(content)

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(_files.Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        run(resume=path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == content


def test_several_writers_of_one_file(tmp_path, content):
    path = tmp_path / "sweep.npz"
    path.write_bytes(content)
    result = SweepResult.load(path)
    failures = []

    def write():
        try:
            for _ in range(20):
                result.save(path)
                SweepResult.load(path)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert list(tmp_path.iterdir()) == [path]


def test_metrics_of_half_precision_are_resumed(tmp_path):
    task = plain(dtype=jnp.bfloat16)
    path = part(tmp_path / "sweep.npz", task)
    resumed, whole = run(task, resume=path), run(task)
    assert resumed.metrics["m"].dtype == np.float32
    np.testing.assert_array_equal(resumed.metrics["m"], whole.metrics["m"])

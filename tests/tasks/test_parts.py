"""Training, validation and test parts of the tasks on data."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import datasets

from optax_extras.tasks import Goal, _real_data, _text, digits, load_task

TARGETS = {
    "digits": datasets.load_digits(return_X_y=True)[1],
    "breast_cancer": datasets.load_breast_cancer(return_X_y=True)[1],
    "diabetes": datasets.load_diabetes(return_X_y=True)[1],
}

# Sizes of the parts, and the start of a hash of the indices in them.
SPLITS = {
    "digits": (
        [1010, 337, 450],
        ["75a883b46aaed0b7", "820c25c206701710", "107612035e494176"],
    ),
    "breast_cancer": (
        [319, 107, 143],
        ["fba953ae199aab13", "7ccf897d278b4ceb", "904a842bdf2b45f4"],
    ),
    "diabetes": (
        [248, 83, 111],
        ["7876f1ab46aa2e5d", "3e545be78b3fb22a", "8b6900d1dabf693f"],
    ),
}

each_data_set = pytest.mark.parametrize("name", SPLITS)


def digest(indices):
    return hashlib.sha256(indices.astype("<i4").tobytes()).hexdigest()[:16]


@each_data_set
def test_the_parts_are_fixed_and_share_the_data_set(name):
    parts = _real_data.split(TARGETS[name], classes=name != "diabetes")
    assert list(parts) == ["train", "validation", "test"]
    found = [[len(p) for p in parts.values()], [digest(p) for p in parts.values()]]
    assert found == list(SPLITS[name])
    together = np.sort(np.concatenate(list(parts.values())))
    np.testing.assert_array_equal(together, np.arange(len(TARGETS[name])))


@pytest.mark.parametrize("name", ["digits", "breast_cancer"])
def test_each_class_has_its_share_of_each_part(name):
    targets = TARGETS[name]
    for part in _real_data.split(targets, classes=True).values():
        share = len(part) / len(targets)
        counts = np.bincount(targets[part])
        np.testing.assert_allclose(counts, share * np.bincount(targets), atol=1.5)


@each_data_set
def test_parts_are_standardised_with_the_training_part(name):
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    numeric = name == "diabetes"
    rows = _real_data.split(y, classes=not numeric)
    known, known_y = x[rows["train"]], y[rows["train"]]
    spread = known.std(axis=0)
    spread[spread == 0] = 1
    for part, (ours, targets) in _real_data.load(name, classes=not numeric).items():
        expected = (x[rows[part]] - known.mean(axis=0)) / spread
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
        expected = y[rows[part]]
        if numeric:
            expected = (expected - known_y.mean()) / known_y.std()
        np.testing.assert_allclose(targets, expected, rtol=1e-5, atol=1e-6)


def test_every_tenth_sequence_is_for_validation_and_another_for_test():
    rows = np.arange(46).reshape(23, 2)
    parts = _text.split(rows)
    assert parts["test"][:, 0].tolist() == [0, 20, 40]
    assert parts["validation"][:, 0].tolist() == [10, 30]
    together = np.concatenate(list(parts.values()))
    np.testing.assert_array_equal(np.sort(together, axis=0), rows)
    sizes = [len(p) for p in _text.split(np.arange(200_000 // 33)).values()]
    assert sizes == [4848, 606, 606]


@pytest.mark.parametrize(
    ("name", "goal"),
    [
        ("digits", Goal("validation_loss", reported="test_loss")),
        ("digits-softmax", Goal("validation_loss", reported="test_loss")),
        (
            "digits-wrong-labels",
            Goal("validation_accuracy", "max", reported="test_accuracy"),
        ),
        ("federated-digits", Goal("validation_loss", reported="test_loss")),
        ("characters", Goal("validation_loss", reported="test_loss")),
        ("breast-cancer", Goal("train_loss")),
        ("diabetes", Goal("train_loss")),
    ],
)
def test_rates_are_not_chosen_by_the_test_part(name, goal):
    task = load_task(name)
    assert task.goal == goal
    metrics = jax.eval_shape(
        lambda key: task.evaluate(task.init(key)), jax.random.key(0)
    )
    assert {"train_loss", "validation_loss", "test_loss"} <= metrics.keys()
    accuracies = {"validation_accuracy", "test_accuracy"}
    classes = "digits" in name or name == "breast-cancer"
    assert metrics.keys() & accuracies == (accuracies if classes else set())


def test_metrics_are_those_of_their_part():
    parts = _real_data.load("digits", classes=True)
    task = digits(hidden=None)
    params = task.init(jax.random.key(0))
    (layer,) = params
    metrics = task.evaluate(params)
    for part, (x, y) in parts.items():
        logits = np.float64(x) @ np.float64(layer["w"])
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        loss = -np.mean(logits[np.arange(len(y)), y])
        assert float(metrics[f"{part}_loss"]) == pytest.approx(loss, rel=1e-5)
        if part != "train":
            right = np.mean(logits.argmax(axis=1) == y)
            assert float(metrics[f"{part}_accuracy"]) == pytest.approx(right, abs=1e-6)


def test_wrong_labels_are_a_fraction_of_the_training_part_alone():
    clean, wrong = digits(None), digits(None, wrong_labels=0.3)
    (x, y), (same, changed) = (
        t.batches.take(t.batches.plan(jax.random.key(0), jnp.int32(0), 1)[0])
        for t in (clean, wrong)
    )
    np.testing.assert_array_equal(x, same)
    assert np.sum(y != changed) == round(0.3 * 1010)
    assert set(np.unique(changed)) == set(range(10))
    params = clean.init(jax.random.key(0))
    found, expected = wrong.evaluate(params), clean.evaluate(params)
    different = {k for k in expected if float(found[k]) != float(expected[k])}
    assert different == {"train_loss"}
    with pytest.raises(ValueError, match=r"`wrong_labels` must be in \[0, 1\], got 2"):
        digits(wrong_labels=2)

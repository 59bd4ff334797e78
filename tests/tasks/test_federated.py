"""Examples that are divided among clients by label, and their mini-batches."""

import hashlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_extras as ox
from optax_extras import compressors
from optax_extras.tasks import (
    Task,
    _real_data,
    digits,
    federated_digits,
    federated_minibatches,
    federated_split,
)
from optax_extras.tuning import sweep

LABELS = _real_data.load("digits", classes=True)["train"][1]
CLIENTS = 8
# Sizes of the clients' parts, and the start of a hash of the indices in them.
SPLITS = {
    0.1: ([108, 27, 152, 96, 92, 79, 325, 131], "3f11d37d5b5395a8"),
    1.0: ([178, 111, 160, 91, 108, 102, 78, 182], "11f4a34ed791b1d7"),
}
# Rows of clients of different sizes, in no order.
ROWS = [[7, 3], [12, 0, 5, 9, 1], [11, 2, 10, 6, 8, 4]]


def split(concentration):
    return federated_split(LABELS, CLIENTS, concentration, minimum=128 // CLIENTS)


def entropy(labels):
    """Entropy of the distribution of labels in nats."""
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    return -np.sum(shares * np.log(shares))


def planned(source, seeds, length, start=0):
    """Plans with several seeds, (seeds, length, batch size)."""
    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    plan = jax.vmap(lambda key: source.plan(key, jnp.int32(start), length))
    return np.asarray(jax.jit(plan)(keys))


@pytest.mark.parametrize("concentration", SPLITS)
def test_a_split_is_fixed_and_shares_the_examples(concentration):
    rows = split(concentration)
    together = np.concatenate(rows)
    found = hashlib.sha256(together.astype("<i4").tobytes()).hexdigest()[:16]
    assert ([len(x) for x in rows], found) == SPLITS[concentration]
    np.testing.assert_array_equal(np.sort(together), np.arange(1010))
    task = federated_digits(concentration)
    assert task.batches.client_sizes == tuple(len(x) for x in rows)
    other = federated_split(LABELS, CLIENTS, concentration, seed=1)
    assert [len(x) for x in other] != [len(x) for x in rows]


def test_a_split_is_drawn_again_until_no_client_has_too_few():
    fewest = [
        min(len(x) for x in federated_split(LABELS, CLIENTS, 0.1, minimum=minimum))
        for minimum in (1, 60)
    ]
    assert 1 <= fewest[0] < 60 <= fewest[1]


def test_a_lower_concentration_gives_fewer_labels_to_a_client():
    entropies = [
        np.mean([entropy(LABELS[rows]) for rows in split(concentration)])
        for concentration in (0.1, 1.0, 1e6)
    ]
    assert entropies[0] < 1.2 < 1.6 < entropies[1] < 2.1
    assert entropies[2] == pytest.approx(math.log(10), abs=0.01)


def test_shares_have_the_moments_of_the_dirichlet_distribution():
    clients, concentration, labels, each = 3, 0.5, 4000, 200
    rows = federated_split(
        np.repeat(np.arange(labels), each), clients, concentration, seed=3
    )
    shares = np.stack([np.bincount(x // each, minlength=labels) for x in rows]) / each
    np.testing.assert_allclose(shares.mean(axis=1), 1 / clients, atol=0.03)
    variance = (1 / clients) * (1 - 1 / clients) / (clients * concentration + 1)
    covariance = np.full((clients, clients), -variance / (clients - 1))
    np.fill_diagonal(covariance, variance)
    np.testing.assert_allclose(np.cov(shares), covariance, atol=0.01)


def test_examples_of_a_label_are_dealt_at_random():
    rows = federated_split(["a"] * 2000 + ["b"] * 2000, 2, 1e6)
    first = np.isin(np.arange(2000), rows[0])
    assert first.sum() == 1000
    assert abs(first[:1000].sum() - 500) < 80  # 5 standard deviations


@pytest.mark.parametrize("part", [1, 2])
def test_clients_give_their_own_examples_once_an_epoch(part):
    source = federated_minibatches(np.arange(13), 3 * part, ROWS)
    (plan,) = planned(source, 1, 12)
    for client, own in enumerate(ROWS):
        rows = plan[:, client * part : (client + 1) * part]
        batches = len(own) // part
        epochs = rows[: 12 // batches * batches].reshape(-1, batches * part)
        for epoch in epochs:
            assert len(set(epoch.tolist())) == batches * part
            assert set(epoch.tolist()) <= set(own)
        if len(own) > 2:
            assert not np.array_equal(epochs[0], epochs[1])


def test_the_order_does_not_depend_on_the_precision():
    source = federated_minibatches(np.arange(13), 3, ROWS)
    expected = source.plan(jax.random.key(0), jnp.int32(5), 4)
    with jax.enable_x64(True):
        found = source.plan(jax.random.key(0), jnp.int32(5), 4)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, expected)


def test_every_order_is_as_likely_and_clients_have_orders_of_their_own():
    source = federated_minibatches(np.arange(8), 2, np.arange(8).reshape(2, 4))
    orders = planned(source, 4800, 4, start=8).transpose(2, 0, 1)
    words = (orders % 4) @ 4 ** np.arange(4)
    for order in words:
        counts = np.unique(order, return_counts=True)[1]
        assert len(counts) == 24
        assert np.sum((counts - 200) ** 2 / 200) < 75  # 23 degrees, 1e-6 above
    assert abs(np.mean(words[0] == words[1]) - 1 / 24) < 5 * np.sqrt(1 / 24 / 4800)


def test_the_network_and_its_metrics_are_those_of_digits():
    whole, divided = digits(hidden=None), federated_digits(hidden=None)
    params, other = (task.init(jax.random.key(0)) for task in (whole, divided))
    jax.tree.map(np.testing.assert_array_equal, params, other)
    expected, found = (jax.jit(task.evaluate)(params) for task in (whole, divided))
    assert jax.device_get(found) == jax.device_get(expected)


def swept(task, steps):
    """A sweep of four workers with the dense mean of their gradients."""

    def make(learning_rate):
        mean = ox.compressed_mean(compressors.Dense(), "data", workers=4)
        return optax.chain(mean, optax.sgd(learning_rate))

    mesh = jax.make_mesh((4,), ("data",), devices=jax.devices()[:4])
    rates = {"learning_rate": [0.1]}
    return sweep(task, make, rates, steps=steps, seeds=1, worker_mesh=mesh)


@pytest.mark.slow
def test_a_worker_has_the_examples_of_its_own_clients():
    def spread(weight, batch, key):
        """Zero where all examples are those of one client."""
        return jnp.var(batch) + 0 * weight

    client = np.repeat(np.arange(4.0, dtype=np.float32), 5)
    batches = federated_minibatches(client, 8, np.arange(20).reshape(4, 5))
    task = Task("spread", lambda key: jnp.zeros(()), batches, spread, lambda w: {})
    assert np.var(batches.take(planned(batches, 1, 1)[0, 0])) > 1
    assert np.max(swept(task, 6).losses) == 0


@pytest.mark.slow
def test_workers_train_on_federated_digits():
    result = swept(federated_digits(hidden=None), 10)
    before, *_, after = result.metrics["train_loss"][0, 0]
    assert after < 0.9 * before


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 100}, ValueError, "multiple of the number.* 100 for 8"),
        ({"batch_size": 1016}, ValueError, r"in \[1, 1010\], got 1016"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be >= 1"),
        ({"batch_size": None}, TypeError, "`batch_size` must be an integer, got None"),
        ({"clients": 0}, ValueError, "`clients` must be >= 1.*got 0"),
        ({"clients": 2.0}, TypeError, "`clients` must be an integer, got 2.0"),
        ({"concentration": 0}, ValueError, "`concentration` must be finite and > 0"),
        ({"concentration": -1.0}, ValueError, "`concentration` must be.*got -1.0"),
        ({"concentration": "a"}, TypeError, "`concentration` must be a real number"),
        (
            {"batch_size": 1008},
            ValueError,
            "`concentration` 0.1 gave each of 8 clients 126 examples",
        ),
    ],
)
def test_bad_options_of_the_task(options, error, message):
    with pytest.raises(error, match=message):
        federated_digits(**options)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (np.zeros((4, 2)), {}, r"`labels` must have one axis, got shape \(4, 2\)"),
        (np.zeros(7), {"minimum": 4}, "at most the 7 `labels`, got 2 times 4"),
        (np.zeros(7), {"minimum": 0}, "`minimum` must be >= 1"),
    ],
)
def test_what_cannot_be_split(labels, options, message):
    with pytest.raises(ValueError, match=message):
        federated_split(labels, 2, 1.0, **options)


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([], ValueError, "multiple of the number of clients, got 4 for 0"),
        ([[0, 1], [2]], ValueError, r"at least 2 .* got shape \(1,\) of client 1"),
        ([[0, 1], [2, 5]], ValueError, r"in \[0, 5\), got 2 to 5 of client 1"),
        ([[-1, 1], [2, 3]], ValueError, r"in \[0, 5\), got -1 to 1 of client 0"),
        ([[0, 1], [2.0, 3]], TypeError, "integers, got dtype float64 of client 1"),
        (np.eye(2, 5) > 0, TypeError, "integers, got dtype bool of client 0"),
    ],
)
def test_rows_that_are_no_indices(rows, error, message):
    with pytest.raises(error, match=message):
        federated_minibatches(np.arange(5), 4, rows)

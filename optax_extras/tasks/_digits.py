"""Classification of handwritten digits by a small network."""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_extras._core import checks
from optax_extras.tasks import _real_data
from optax_extras.tasks._batches import (
    Batches,
    federated_minibatches,
    minibatches,
    part_of_client,
)
from optax_extras.tasks._federated import federated_split
from optax_extras.tasks._names import named
from optax_extras.tasks._task import Goal, Task

_CLASSES = 10
_LABEL_SEED = 0
_BY_LOSS = Goal("validation_loss", reported="test_loss")


@named(hidden={None: "digits-softmax"}, wrong_labels={0.3: "digits-wrong-labels"})
def digits(
    batch_size: int | None = 128,
    hidden: int | None = 64,
    wrong_labels: float = 0.0,
) -> Task:
    """Network with one hidden layer on 8×8 images of handwritten digits.

    The 1797 images come with scikit-learn (Alpaydin & Kaynak 1998, UCI "Optical
    Recognition of Handwritten Digits"). A fixed, stratified split makes 1010 of them
    the training part, 337 the validation part and 450 the test part; pixels are
    standardised with the statistics of the training part.

    Args:
      batch_size: images per mini-batch, sampled without replacement within an epoch;
        None for the whole training part.
      hidden: number of hidden units, with ReLU; None for softmax regression.
      wrong_labels: fraction of training labels, in [0, 1], that are replaced by another
        digit. The same labels are wrong in every run; those of the validation and the
        test part are correct.

    Returns:
      A task with the metrics ``train_loss``, ``validation_loss`` and ``test_loss``, the
      mean cross-entropy in nats, and ``validation_accuracy`` and ``test_accuracy``,
      fractions. Its goal chooses by the loss on the validation part and reports that on
      the test part, or the accuracies if there are wrong labels.

    Raises:
      ValueError: ``batch_size`` is not between 1 and the 1010 training images, or
        ``wrong_labels`` is not in [0, 1].
      ImportError: scikit-learn is not installed.
    """
    if not 0 <= wrong_labels <= 1:
        raise ValueError(f"`wrong_labels` must be in [0, 1], got {wrong_labels}")
    parts = _real_data.load("digits", classes=True)
    images, labels = parts["train"]
    parts["train"] = images, _with_errors(labels, wrong_labels)
    goal = _BY_LOSS
    if wrong_labels:
        goal = Goal("validation_accuracy", "max", reported="test_accuracy")
    batches = minibatches(parts["train"], batch_size)
    return _classification("digits", batches, parts, hidden, goal)


@named(concentration={1.0: "federated-digits-mild"})
def federated_digits(
    concentration: float = 0.1,
    clients: int = 8,
    batch_size: int = 128,
    hidden: int | None = 64,
) -> Task:
    """`digits` whose training part is split by label among clients.

    Each client gives an equal part of every mini-batch, as `federated_minibatches`
    says, so that workers which divide the mini-batch train on their own clients' digits
    alone. The split is that of `federated_split`, the same in every run: it is drawn
    again until no client has fewer images than its part of a mini-batch. Metrics are
    those of the digits of all clients together.

    Args:
      concentration: of the Dirichlet distribution of the split. At 0.1, most images of
        each client are of one or two digits; at 1.0, each client has images of most
        digits, of some many times more than of others.
      clients: number of clients.
      batch_size: images per mini-batch, a multiple of ``clients``.
      hidden: number of hidden units, with ReLU; None for softmax regression.

    Returns:
      A task with the model, the metrics and the goal of `digits`. The numbers of images
      of the clients are in ``batches.client_sizes``.

    Raises:
      TypeError: a number is of another type.
      ValueError: ``concentration`` is not finite and above 0, ``batch_size`` is not
        between 1 and the 1010 training images or not a multiple of ``clients``, or no
        split was found that gives each client its part of a mini-batch.
      ImportError: scikit-learn is not installed.

    Examples:
      >>> from optax_extras.tasks import federated_digits
      >>> sizes = federated_digits(clients=4).batches.client_sizes
      >>> len(sizes), sum(sizes), min(sizes) >= 128 / 4
      (4, 1010, True)

    References:
      Hsu, Qi, Brown 2019, "Measuring the Effects of Non-Identical Data Distribution for
      Federated Visual Classification", arXiv 1909.06335
    """
    parts = _real_data.load("digits", classes=True)
    _, labels = parts["train"]
    clients = checks.positive_integer("clients", clients)
    minimum = part_of_client(batch_size, clients, len(labels))
    rows = federated_split(labels, clients, concentration, minimum=minimum)
    batches = federated_minibatches(parts["train"], batch_size, rows)
    return _classification("federated-digits", batches, parts, hidden, _BY_LOSS)


def _classification(
    name: str,
    batches: Batches,
    parts: _real_data.Parts,
    hidden: int | None,
    goal: Goal,
) -> Task:
    """Task of a network that classifies the images of the parts."""
    width = parts["train"][0].shape[1]
    sizes = [width, _CLASSES] if hidden is None else [width, hidden, _CLASSES]

    def init(key: jax.Array) -> list[dict[str, jax.Array]]:
        shapes = list(pairwise(sizes))
        # One draw for all layers compiles one random generator, not one per layer.
        ends = np.cumsum([fan_in * out for fan_in, out in shapes])
        flat = jnp.split(jax.random.normal(key, (int(ends[-1]),)), ends[:-1])
        gains = [2] * (len(shapes) - 1) + [1]
        return [
            {"w": w.reshape(shape) * np.sqrt(gain / shape[0]), "b": jnp.zeros(shape[1])}
            for w, shape, gain in zip(flat, shapes, gains, strict=True)
        ]

    def logits(params: Any, x: Any) -> jax.Array:
        *layers, last = params
        for layer in layers:
            x = jax.nn.relu(x @ layer["w"] + layer["b"][None])
        return x @ last["w"] + last["b"][None]  # type: ignore[no-any-return]

    def loss(params: Any, batch: Any, key: jax.Array | None = None) -> jax.Array:
        del key
        x, y = batch
        losses = optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y)
        return jnp.mean(losses)

    def evaluate(params: Any) -> dict[str, jax.Array]:
        metrics = {f"{name}_loss": loss(params, part) for name, part in parts.items()}
        for name in ("validation", "test"):
            x, y = parts[name]
            correct = jnp.argmax(logits(params, jnp.asarray(x)), axis=1) == y
            metrics[f"{name}_accuracy"] = jnp.mean(correct)
        return metrics

    return Task(name, init, batches, loss, evaluate, goal)


def _with_errors(labels: np.ndarray[Any, Any], fraction: float) -> np.ndarray[Any, Any]:
    """Labels with a fraction of them replaced by another class."""
    rng = np.random.default_rng(_LABEL_SEED)
    wrong = rng.permutation(len(labels))[: round(fraction * len(labels))]
    changed = labels.copy()
    changed[wrong] += rng.integers(1, _CLASSES, len(wrong)).astype(labels.dtype)
    return changed % _CLASSES

"""Handwritten digits: a small network on scikit-learn's bundled data."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_extras.tuning._task import Task

_CLASSES = 10
_SPLIT_SEED = 0


def digits(batch_size: int | None = 128, hidden: int = 64) -> Task:
    """A one-hidden-layer network on 8×8 images of handwritten digits.

    The 1797 images come with scikit-learn (Alpaydin & Kaynak 1998, UCI "Optical
    Recognition of Handwritten Digits"). A quarter, the same one always and with every
    digit's share, is the test set; pixels are standardised by the training set.

    Args:
      batch_size: images in a mini-batch, drawn without replacement within an epoch,
        whose remainder is left out; None is the whole training set.
      hidden: units of the hidden layer, with ReLU.

    Returns:
      A task whose metrics are ``train_loss``, the mean cross-entropy in nats over the
      training set, and ``test_accuracy``, a fraction.

    Raises:
      ValueError: ``batch_size`` is not between 1 and the 1347 training images.
      ImportError: scikit-learn is not installed.
    """
    x_train, x_test, y_train, y_test = _load()
    size = len(x_train)
    if batch_size is not None and not 1 <= batch_size <= size:
        raise ValueError(f"`batch_size` must be in [1, {size}], got {batch_size}")

    def init(key: jax.Array) -> dict[str, jax.Array]:
        first, second = jax.random.split(key)
        width = x_train.shape[1]
        return {
            "w1": jax.random.normal(first, (width, hidden)) * np.sqrt(2 / width),
            "b1": jnp.zeros(hidden),
            "w2": jax.random.normal(second, (hidden, _CLASSES)) * np.sqrt(1 / hidden),
            "b2": jnp.zeros(_CLASSES),
        }

    def logits(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        activity = jax.nn.relu(x @ params["w1"] + params["b1"][None])
        return activity @ params["w2"] + params["b2"][None]

    def plan(key: jax.Array, start: jax.Array, length: int) -> jax.Array:
        """Indices of images, int32[length, batch_size]; one shuffle an epoch."""
        if batch_size is None:
            return jnp.tile(jnp.arange(size)[None], (length, 1))
        batches = size // batch_size
        first, skipped = jnp.divmod(start, batches)

        def epoch(number: jax.Array) -> jax.Array:
            order = jax.random.permutation(jax.random.fold_in(key, number), size)
            return order[: batches * batch_size].reshape(batches, batch_size)

        epochs = jax.vmap(epoch)(first + jnp.arange(-(-length // batches) + 1))
        rows = epochs.reshape(-1, batch_size)
        return jax.lax.dynamic_slice_in_dim(rows, skipped, length)

    def batch(indices: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.asarray(x_train)[indices], jnp.asarray(y_train)[indices]

    def loss(params: Any, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        x, y = batch
        losses = optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y)
        return jnp.mean(losses)

    def evaluate(params: Any) -> dict[str, jax.Array]:
        correct = jnp.argmax(logits(params, jnp.asarray(x_test)), axis=1) == y_test
        train_loss = loss(params, (jnp.asarray(x_train), jnp.asarray(y_train)))
        return {"train_loss": train_loss, "test_accuracy": jnp.mean(correct)}

    return Task("digits", init, plan, batch, loss, evaluate)


def _load() -> tuple[np.ndarray[Any, Any], ...]:
    """The images and labels: x_train, x_test, y_train, y_test."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise ImportError(
            "the digits task needs scikit-learn: pip install 'optax-extras[cli]'"
        ) from error
    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        x, y, test_size=0.25, random_state=_SPLIT_SEED, stratify=y
    )
    scaler = StandardScaler().fit(x_train)
    return (
        scaler.transform(x_train).astype(np.float32),
        scaler.transform(x_test).astype(np.float32),
        y_train.astype(np.int32),
        y_test.astype(np.int32),
    )

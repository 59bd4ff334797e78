"""Regression on small data sets: convex problems with a unique minimum."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optax_extras.tasks import _real_data
from optax_extras.tasks._batches import minibatches
from optax_extras.tasks._task import Goal, Task

Params = dict[str, jax.Array]

_GOAL = Goal("train_loss")


def breast_cancer(batch_size: int | None = 32, penalty: float = 1e-3) -> Task:
    """Logistic regression on the Wisconsin breast cancer data (Wolberg et al. 1993).

    The data, from scikit-learn, are 569 tumours with 30 features, benign or malignant.

    Args:
      batch_size: tumours per mini-batch; None for the whole training set.
      penalty: coefficient of ‖w‖² in the loss, at least 0.

    Returns:
      A task with the metrics ``train_loss``, the mean cross-entropy in nats plus the
      penalty, and ``test_accuracy``, a fraction.

    Raises:
      ValueError: ``batch_size`` is not between 1 and the 426 training examples, or
        ``penalty`` is negative.
      ImportError: scikit-learn is not installed.
    """
    if not penalty >= 0:
        raise ValueError(f"`penalty` must be >= 0, got {penalty}")
    x_train, x_test, y_train, y_test = _real_data.load("breast_cancer", classes=True)

    def loss(params: Params, batch: Any, key: jax.Array | None = None) -> jax.Array:
        del key
        x, y = batch
        margins = (2 * y - 1) * _linear(params, x)
        return jnp.mean(jax.nn.softplus(-margins)) + penalty * jnp.sum(params["w"] ** 2)

    def evaluate(params: Params) -> dict[str, jax.Array]:
        correct = (_linear(params, jnp.asarray(x_test)) > 0) == y_test
        return {
            "train_loss": loss(params, (jnp.asarray(x_train), jnp.asarray(y_train))),
            "test_accuracy": jnp.mean(correct),
        }

    batches = minibatches((x_train, y_train), batch_size)
    return Task("breast-cancer", _zeros(x_train), batches, loss, evaluate, _GOAL)


def diabetes(batch_size: int | None = 32) -> Task:
    """Linear regression on the diabetes data (Efron et al. 2004).

    The data, from scikit-learn, are 442 patients with 10 features and a measure of
    disease progression after a year.

    Args:
      batch_size: patients per mini-batch; None for the whole training set.

    Returns:
      A task with the metrics ``train_loss`` and ``test_loss``, half the mean squared
      error of the standardised target.

    Raises:
      ValueError: ``batch_size`` is not between 1 and the 331 training examples.
      ImportError: scikit-learn is not installed.
    """
    x_train, x_test, y_train, y_test = _real_data.load("diabetes", classes=False)

    def loss(params: Params, batch: Any, key: jax.Array | None = None) -> jax.Array:
        del key
        x, y = batch
        return jnp.mean((_linear(params, x) - y) ** 2) / 2

    def evaluate(params: Params) -> dict[str, jax.Array]:
        return {
            "train_loss": loss(params, (jnp.asarray(x_train), jnp.asarray(y_train))),
            "test_loss": loss(params, (jnp.asarray(x_test), jnp.asarray(y_test))),
        }

    batches = minibatches((x_train, y_train), batch_size)
    return Task("diabetes", _zeros(x_train), batches, loss, evaluate, _GOAL)


def _zeros(x: np.ndarray[Any, Any]) -> Any:
    def init(key: jax.Array) -> Params:
        del key
        return {"w": jnp.zeros(x.shape[1]), "b": jnp.zeros(())}

    return init


def _linear(params: Params, x: jax.Array) -> jax.Array:
    return x @ params["w"] + params["b"]

"""Regression on small data sets: convex problems with a unique minimum.

They are problems of optimisation, whose goal is therefore a low training loss. The
metrics on the validation and test parts are there for goals of your own, such as
``dataclasses.replace(task, goal=Goal("validation_loss", reported="test_loss"))``.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from optax_extras.tasks import _real_data
from optax_extras.tasks._batches import minibatches
from optax_extras.tasks._names import named
from optax_extras.tasks._task import Goal, Task

Params = dict[str, jax.Array]

_GOAL = Goal("train_loss")


@named()
def breast_cancer(batch_size: int | None = 32, penalty: float = 1e-3) -> Task:
    """Logistic regression on the Wisconsin breast cancer data (Wolberg et al. 1993).

    The data, from scikit-learn, are 569 tumours with 30 features, benign or malignant.
    A fixed, stratified split makes 319 of them the training part, 107 the validation
    part and 143 the test part.

    Args:
      batch_size: tumours per mini-batch; None for the whole training part.
      penalty: coefficient of ‖w‖² in the loss, at least 0.

    Returns:
      A task with the metrics ``train_loss``, ``validation_loss`` and ``test_loss``, the
      mean cross-entropy in nats plus the penalty, and ``validation_accuracy`` and
      ``test_accuracy``, fractions. Its goal is a low training loss, because the task is
      a problem of optimisation: with a penalty, that loss has a unique minimum.

    Raises:
      ValueError: ``batch_size`` is not between 1 and the 319 training examples, or
        ``penalty`` is negative.
      ImportError: scikit-learn is not installed.
    """
    if not penalty >= 0:
        raise ValueError(f"`penalty` must be >= 0, got {penalty}")
    parts = _real_data.load("breast_cancer", classes=True)

    def loss(params: Params, batch: Any, key: jax.Array | None = None) -> jax.Array:
        del key
        x, y = batch
        margins = (2 * y - 1) * _linear(params, x)
        return jnp.mean(jax.nn.softplus(-margins)) + penalty * jnp.sum(params["w"] ** 2)

    def evaluate(params: Params) -> dict[str, jax.Array]:
        metrics = _losses(loss, params, parts)
        for name in ("validation", "test"):
            x, y = parts[name]
            metrics[f"{name}_accuracy"] = jnp.mean((_linear(params, x) > 0) == y)
        return metrics

    init, batches = _zeros(parts), minibatches(parts["train"], batch_size)
    return Task("breast-cancer", init, batches, loss, evaluate, _GOAL)


@named()
def diabetes(batch_size: int | None = 32) -> Task:
    """Linear regression on the diabetes data (Efron et al. 2004).

    The data, from scikit-learn, are 442 patients with 10 features and a measure of
    disease progression after a year. A fixed split makes 248 of them the training part,
    83 the validation part and 111 the test part.

    Args:
      batch_size: patients per mini-batch; None for the whole training part.

    Returns:
      A task with the metrics ``train_loss``, ``validation_loss`` and ``test_loss``,
      half the mean squared error of the standardised target. Its goal is a low training
      loss, because the task is a problem of optimisation with a unique minimum.

    Raises:
      ValueError: ``batch_size`` is not between 1 and the 248 training examples.
      ImportError: scikit-learn is not installed.
    """
    parts = _real_data.load("diabetes", classes=False)

    def loss(params: Params, batch: Any, key: jax.Array | None = None) -> jax.Array:
        del key
        x, y = batch
        return jnp.mean((_linear(params, x) - y) ** 2) / 2

    init, batches = _zeros(parts), minibatches(parts["train"], batch_size)
    return Task(
        "diabetes",
        init,
        batches,
        loss,
        lambda params: _losses(loss, params, parts),
        _GOAL,
    )


def _losses(
    loss: Callable[..., jax.Array], params: Params, parts: _real_data.Parts
) -> dict[str, jax.Array]:
    """Metrics of the loss on each part."""
    return {f"{name}_loss": loss(params, part) for name, part in parts.items()}


def _zeros(parts: _real_data.Parts) -> Callable[[jax.Array], Params]:
    features = parts["train"][0].shape[1]

    def init(key: jax.Array) -> Params:
        del key
        return {"w": jnp.zeros(features), "b": jnp.zeros(())}

    return init


def _linear(params: Params, x: Any) -> jax.Array:
    return jnp.asarray(x) @ params["w"] + params["b"]

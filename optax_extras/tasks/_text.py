"""Character-level language model of text that comes with Python."""

import pydoc_data.topics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_extras.tasks._batches import minibatches
from optax_extras.tasks._names import named
from optax_extras.tasks._task import Goal, Task

Params = dict[str, jax.Array]


@named()
def characters(
    batch_size: int = 32, length: int = 32, width: int = 64, text_size: int = 200_000
) -> Task:
    """Gated recurrent network that predicts the next character of Python's help texts.

    The text is ``pydoc_data.topics`` in alphabetical order of the topics, in lower
    case, cut into sequences. Of every ten sequences, one is in the test part, one in
    the validation part and eight in the training part: 606, 606 and 4848 sequences with
    the default options. The network is a GRU (Cho et al. 2014, arXiv 1406.1078).

    Args:
      batch_size: sequences per mini-batch.
      length: characters predicted per sequence.
      width: units of the recurrent layer.
      text_size: number of characters of the text that are used.

    Returns:
      A task with the metrics ``train_loss``, ``validation_loss`` and ``test_loss``, the
      mean cross-entropy in nats per character over 100 sequences each. Its goal chooses
      by the loss on the validation part and reports that on the test part.

    Raises:
      ValueError: a number is below 1, the text is too short for 10 sequences, or
        ``batch_size`` is above the number of sequences in the training part.
    """
    for name, number in (("length", length), ("width", width)):
        if number < 1:
            raise ValueError(f"`{name}` must be >= 1, got {number}")
    text = "".join(
        pydoc_data.topics.topics[k] for k in sorted(pydoc_data.topics.topics)
    )
    text = text.lower()[:text_size]
    alphabet = sorted(set(text))
    codes = np.searchsorted(alphabet, list(text)).astype(np.int32)
    sequences = len(codes) // (length + 1)
    if sequences < 10:
        raise ValueError(
            f"`text_size` must hold 10 sequences of `length` {length}, got {text_size}"
        )
    rows = codes[: sequences * (length + 1)].reshape(sequences, length + 1)
    parts = split(rows)
    size = len(alphabet)

    def init(key: jax.Array) -> Params:
        embedding, inside, across, out = jax.random.split(key, 4)
        scale = np.sqrt(1 / width)
        return {
            "embedding": jax.random.normal(embedding, (size, width)),
            "input": scale * jax.random.normal(inside, (width, 3 * width)),
            "recurrent": scale * jax.random.normal(across, (width, 3 * width)),
            "bias": jnp.zeros(3 * width),
            "output": scale * jax.random.normal(out, (width, size)),
        }

    def loss(
        params: Params, batch: jax.Array, key: jax.Array | None = None
    ) -> jax.Array:
        del key
        inputs = params["embedding"][batch[:, :-1]] @ params["input"]

        def cell(state: jax.Array, driven: jax.Array) -> tuple[jax.Array, jax.Array]:
            outer = jnp.split(driven + params["bias"][None], 3, axis=1)
            inner = jnp.split(state @ params["recurrent"], 3, axis=1)
            update = jax.nn.sigmoid(outer[0] + inner[0])
            reset = jax.nn.sigmoid(outer[1] + inner[1])
            candidate = jnp.tanh(outer[2] + reset * inner[2])
            state = (1 - update) * state + update * candidate
            return state, state

        start = jnp.zeros((len(batch), width))
        _, states = jax.lax.scan(cell, start, jnp.swapaxes(inputs, 0, 1))
        logits = jnp.swapaxes(states, 0, 1) @ params["output"]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch[:, 1:])
        return jnp.mean(losses)

    def evaluate(params: Params) -> dict[str, jax.Array]:
        samples = {name: jnp.asarray(part[:100]) for name, part in parts.items()}
        return {f"{name}_loss": loss(params, rows) for name, rows in samples.items()}

    batches = minibatches(parts["train"], batch_size)
    goal = Goal("validation_loss", reported="test_loss")
    return Task("characters", init, batches, loss, evaluate, goal)


def split(rows: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Rows of each part: of every ten, the first is for test, the sixth validation."""
    place = np.arange(len(rows)) % 10
    test, validation = place == 0, place == 5
    return {
        "train": rows[~(test | validation)],
        "validation": rows[validation],
        "test": rows[test],
    }

"""Character-level language model of text that comes with Python."""

import pydoc_data.topics

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_extras.tasks._batches import minibatches
from optax_extras.tasks._task import Goal, Task

Params = dict[str, jax.Array]


def characters(
    batch_size: int = 32, length: int = 32, width: int = 64, text_size: int = 200_000
) -> Task:
    """Gated recurrent network that predicts the next character of Python's help texts.

    The text is ``pydoc_data.topics`` in alphabetical order of the topics, in lower
    case, cut into sequences; every tenth sequence is in the test set. The network is a
    GRU (Cho et al. 2014, arXiv 1406.1078).

    Args:
      batch_size: sequences per mini-batch.
      length: characters predicted per sequence.
      width: units of the recurrent layer.
      text_size: number of characters of the text that are used.

    Returns:
      A task with the metrics ``train_loss`` and ``test_loss``, the mean cross-entropy
      in nats per character over 100 sequences each.

    Raises:
      ValueError: a number is below 1, or the text is too short for 10 sequences.
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
    test = rows[::10]
    train = np.delete(rows, np.s_[::10], axis=0)
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
        samples = {"train_loss": train[:100], "test_loss": test[:100]}
        return {k: loss(params, jnp.asarray(v)) for k, v in samples.items()}

    batches, goal = minibatches(train, batch_size), Goal("test_loss")
    return Task("characters", init, batches, loss, evaluate, goal)

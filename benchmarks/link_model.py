"""The model and the data of the trainings over a link, as NumPy arrays."""

import itertools
import pydoc_data.topics

import numpy as np

CONTEXT, EMBEDDING, HIDDEN = 32, 64, (2048, 2048, 768)
BATCH, TESTED = 16, 512
RATE, MOMENTUM = 0.01, 0.9
WORKERS = 2
LOCAL, DENSE = "local steps, nothing sent", "dense"  # methods


def windows() -> tuple[np.ndarray, int]:
    """Python's help texts, as all runs of CONTEXT + 1 characters, and the alphabet."""
    topics = pydoc_data.topics.topics
    text = "".join(topics[name] for name in sorted(topics)).lower()
    alphabet = sorted(set(text))
    codes = np.searchsorted(alphabet, list(text)).astype(np.int32)
    return np.lib.stride_tricks.sliding_window_view(codes, CONTEXT + 1), len(alphabet)


class Data:
    """Mini-batches of a worker, and windows for tests of the last tenth of the text."""

    def __init__(self, worker: int) -> None:
        """Cuts the text."""
        rows, self.characters = windows()
        self._train = rows[: len(rows) * 9 // 10]
        test = rows[len(rows) * 9 // 10 + CONTEXT :]
        self.test = np.ascontiguousarray(test[:: len(test) // TESTED][:TESTED])
        self._worker = worker

    def batch(self, step: int) -> np.ndarray:
        """The mini-batch of a step; the same windows for every method."""
        draw = np.random.default_rng((step, self._worker))
        return self._train[draw.integers(len(self._train), size=BATCH)]


def parameters(characters: int) -> dict[str, np.ndarray]:
    """An embedding, and kernels of (inputs, outputs) with biases."""
    draw = np.random.default_rng(0)
    widths = [CONTEXT * EMBEDDING, *HIDDEN, characters]
    embedding = draw.standard_normal((characters, EMBEDDING), np.float32)
    made = {"embedding": embedding}
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        kernel = draw.standard_normal((a, b), np.float32)
        made[f"kernel{i}"] = kernel * np.float32(2 / a) ** 0.5
        made[f"bias{i}"] = np.zeros(b, np.float32)
    return made

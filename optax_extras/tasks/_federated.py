"""Division of labelled examples among clients whose data are not alike."""

from typing import Any

import numpy as np

from optax_extras._core import checks

# Splits that are drawn before giving up.
_DRAWS = 10_000


def federated_split(
    labels: Any,
    clients: int,
    concentration: float,
    *,
    minimum: int = 1,
    seed: int = 0,
) -> list[np.ndarray[Any, Any]]:
    """Splits examples by label among clients, with Dirichlet-distributed shares.

    For each label, the shares of the clients are drawn from the symmetric Dirichlet
    distribution. A low concentration gives almost all examples of a label to one
    client, so that clients have few labels each and numbers of examples that differ; a
    high one gives all clients the same mixture. The whole split is drawn again until
    each client has ``minimum`` examples.

    *Differences from the source.* Hsu et al. draw the shares of the labels for each
    client and give all clients equally many examples, but not every example to a
    client. To use each example once, the shares of the clients are drawn here for each
    label, as by Yurochkin et al.; so clients differ in size as well.

    Args:
      labels: label of each example; one axis, of numbers or strings.
      clients: number of clients.
      concentration: parameter of the Dirichlet distribution, finite and above 0.
      minimum: least number of examples of a client.
      seed: of the split, which is the same in every run.

    Returns:
      Indices of the examples of each client, in rising order.

    Raises:
      TypeError: a number is of another type.
      ValueError: a number is out of range, ``labels`` have several axes or are fewer
        than ``clients`` times ``minimum``, or no split with ``minimum`` examples of
        each client was found.

    Examples:
      >>> import numpy as np
      >>> from optax_extras.tasks import federated_split
      >>> labels = np.repeat(["cat", "dog", "owl"], 90)
      >>> rows = federated_split(labels, clients=3, concentration=0.1, minimum=50)
      >>> sorted(np.concatenate(rows).tolist()) == list(range(270))
      True
      >>> min(len(client) for client in rows) >= 50
      True
      >>> even = federated_split(labels, clients=3, concentration=1e6)
      >>> [len(client) for client in even]
      [90, 90, 90]

    References:
      Hsu, Qi, Brown 2019, "Measuring the Effects of Non-Identical Data Distribution for
      Federated Visual Classification", arXiv 1909.06335; Yurochkin et al. 2019,
      "Bayesian Nonparametric Federated Learning of Neural Networks", arXiv 1905.12022
    """
    clients = checks.positive_integer("clients", clients)
    minimum = checks.positive_integer("minimum", minimum)
    concentration = checks.positive("concentration", concentration)
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise ValueError(f"`labels` must have one axis, got shape {labels.shape}")
    if clients * minimum > len(labels):
        raise ValueError(
            f"`clients` times `minimum` must be at most the {len(labels)} `labels`, got"
            f" {clients} times {minimum}"
        )
    rng = np.random.default_rng(seed)
    _, kinds, counts = np.unique(labels, return_inverse=True, return_counts=True)
    for _ in range(_DRAWS):
        sizes = _sizes(counts, clients, concentration, rng)
        if sizes.sum(axis=0).min() >= minimum:
            break
    else:
        raise ValueError(
            f"none of {_DRAWS} splits with `concentration` {concentration} gave each of"
            f" {clients} clients {minimum} examples; use fewer clients, a higher"
            " concentration or smaller parts"
        )
    shuffled = rng.permutation(len(labels))
    by_label = shuffled[np.argsort(kinds[shuffled], kind="stable")]
    owners = np.empty(len(labels), int)
    owners[by_label] = np.repeat(np.tile(np.arange(clients), len(counts)), sizes.flat)
    return [np.flatnonzero(owners == client) for client in range(clients)]


def _sizes(
    counts: np.ndarray[Any, Any],
    clients: int,
    concentration: float,
    rng: np.random.Generator,
) -> np.ndarray[Any, Any]:
    """Number of examples of each label that each client gets, (labels, clients)."""
    shares = rng.dirichlet(np.full(clients, concentration), size=len(counts))
    ends = np.rint(np.cumsum(shares, axis=1)[:, :-1] * counts[:, None]).astype(int)
    return np.diff(ends, axis=1, prepend=0, append=counts[:, None])

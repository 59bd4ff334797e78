"""Data sets bundled with scikit-learn, split and standardised."""

from typing import Any

import numpy as np

SPLIT_SEED = 0

Array = np.ndarray[Any, Any]
# Inputs and targets of the parts ``train``, ``validation`` and ``test``.
Parts = dict[str, tuple[Array, Array]]


def load(name: str, *, classes: bool) -> Parts:
    """Loads the parts of a data set, each as inputs and targets.

    Inputs and numeric targets are standardised with the statistics of the training
    part.

    Args:
      name: name of the data set, as in scikit-learn's ``load_<name>``.
      classes: whether the targets are classes.

    Returns:
      Inputs as float32; targets as int32 if they are classes, else as float32.

    Raises:
      ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise ImportError(
            f"the {name} task needs scikit-learn: pip install 'optax-extras[cli]'"
        ) from error
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    rows = split(y, classes=classes)
    x = StandardScaler().fit(x[rows["train"]]).transform(x)
    if not classes:
        known = y[rows["train"]]
        y = (y - known.mean()) / known.std()
    x, y = x.astype(np.float32), y.astype(np.int32 if classes else np.float32)
    return {part: (x[indices], y[indices]) for part, indices in rows.items()}


def split(targets: Array, *, classes: bool) -> dict[str, Array]:
    """Indices of the examples in each part.

    A fixed quarter is the test part, and a fixed quarter of the others the validation
    part. Both are stratified where the targets are classes.
    """
    from sklearn.model_selection import train_test_split

    def divide(rows: Array) -> tuple[Array, Array]:
        kinds = targets[rows] if classes else None
        larger, quarter = train_test_split(
            rows, test_size=0.25, random_state=SPLIT_SEED, stratify=kinds
        )
        return larger, quarter

    others, test = divide(np.arange(len(targets)))
    train, validation = divide(others)
    return {"train": train, "validation": validation, "test": test}

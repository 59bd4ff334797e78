"""Data sets that come with scikit-learn, split and standardised."""

from typing import Any

import numpy as np

SPLIT_SEED = 0


def load(name: str, *, classes: bool) -> tuple[np.ndarray[Any, Any], ...]:
    """Inputs and targets of a data set: x_train, x_test, y_train, y_test.

    A quarter, the same one always, is the test set. Inputs are standardised by the
    training set, and so are targets that are no classes; classes have the same shares
    in both sets.

    Args:
      name: the end of scikit-learn's ``load_…``.
      classes: whether the targets are classes.

    Raises:
      ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
        from sklearn.model_selection import train_test_split
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise ImportError(
            f"the {name} task needs scikit-learn: pip install 'optax-extras[cli]'"
        ) from error
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        x, y, test_size=0.25, random_state=SPLIT_SEED, stratify=y if classes else None
    )
    scaler = StandardScaler().fit(x_train)
    if not classes:
        mean, deviation = y_train.mean(), y_train.std()
        y_train, y_test = (y_train - mean) / deviation, (y_test - mean) / deviation
    kind = np.int32 if classes else np.float32
    return (
        scaler.transform(x_train).astype(np.float32),
        scaler.transform(x_test).astype(np.float32),
        y_train.astype(kind),
        y_test.astype(kind),
    )

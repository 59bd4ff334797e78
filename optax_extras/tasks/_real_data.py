"""Data sets bundled with scikit-learn, split and standardised."""

from typing import Any

import numpy as np

SPLIT_SEED = 0


def load(name: str, *, classes: bool) -> tuple[np.ndarray[Any, Any], ...]:
    """Loads a data set as x_train, x_test, y_train, y_test.

    A fixed quarter is the test set, stratified where the targets are classes. Inputs
    and numeric targets are standardised with the statistics of the training set.

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

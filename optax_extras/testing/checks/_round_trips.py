"""Round trips of a state through NumPy archives and pickles."""

import io
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def through_arrays(state: Any) -> Any:
    """A state written with `np.savez` and read back."""
    structure: Any
    leaves, structure = jax.tree.flatten(state)
    file = io.BytesIO()
    np.savez(file, *leaves)
    file.seek(0)
    with np.load(file) as arrays:
        read = [_read(arrays[f"arr_{i}"], leaf) for i, leaf in enumerate(leaves)]
    return structure.unflatten(read)


def _read(array: np.ndarray[Any, Any], like: Any) -> jax.Array:
    # NumPy stores what it has no name for, such as bfloat16, as bytes.
    return jnp.asarray(array.view(like.dtype) if array.dtype.kind == "V" else array)


def through_pickle(state: Any) -> Any:
    """A state pickled on the host and read back."""
    copy = pickle.loads(pickle.dumps(jax.device_get(state)))
    return jax.tree.map(jnp.asarray, copy)

"""Files of named arrays: written whole or not at all, and read without pickles."""

import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from optax_extras._core.writing import write_whole

Arrays = Mapping[str, np.ndarray[Any, Any]]
_DIGEST = "digest"


def write(path: str | Path, arrays: Arrays) -> None:
    """Writes an ``.npz`` file with a digest of what is in it."""
    content = io.BytesIO()
    np.savez(content, **arrays, **{_DIGEST: np.array(digest(arrays))})  # type: ignore[arg-type]
    write_whole(path, content.getbuffer())


def check_writable(path: str | Path) -> None:
    """Checks that `write` can make a file.

    Raises:
      OSError: its folder does not exist, or does not take files.
    """
    folder = Path(path).absolute().parent
    if not os.access(folder, os.W_OK):
        raise OSError(f"{path} cannot be written: {folder} does not take files")


def read(path: str | Path) -> dict[str, np.ndarray[Any, Any]]:
    """Reads a file that `write` wrote.

    Raises:
      OSError: it cannot be opened.
      ValueError: it is another file, or damaged.
    """
    with Path(path).open("rb") as opened:
        try:
            with np.load(opened, allow_pickle=False) as file:
                arrays = dict(file)
            found = str(arrays.pop(_DIGEST))
        except Exception as error:  # readers of zip files raise a dozen kinds
            raise ValueError(
                f"{path} is not a sweep that `save` wrote, or damaged"
            ) from error
    if found != digest(arrays):
        raise ValueError(f"{path} is damaged: its arrays do not fit its digest")
    return arrays


def digest(arrays: Arrays) -> str:
    """SHA-256 of names, dtypes, shapes and bytes."""
    state = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        state.update(f"{name!r} {array.dtype.str} {array.shape}\n".encode())
        state.update(array.tobytes())
    return state.hexdigest()

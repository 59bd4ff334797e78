"""What the paths of leaves tell: words for draws, and whose an array of a state is.

Two words identify a path in every process; they do not depend on how JAX prints keys.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import numpy as np

T = TypeVar("T")


def hash_paths(stream: str, paths: list[Any]) -> np.ndarray[Any, Any]:
    """The two words of each path, (2, number of paths)."""
    hashes: dict[Any, None] = {}
    for path in paths:
        words = hash_words(stream, *path)
        if words in hashes:
            raise ValueError(
                "each leaf needs a path of its own to draw by, but two leaves are at"
                f" `{jax.tree_util.keystr(path)}`"
            )
        hashes[words] = None
    return np.array(list(hashes)).T


def owner(path: Any, of_params: Mapping[Any, T]) -> T | None:
    """What belongs to the parameter of an array in a state.

    That is the parameter with whose path the array's own ends; if there are several,
    the one of the longest. A parameter that is the whole tree has no path to tell.

    Args:
      path: of the array.
      of_params: something for each parameter, by its path.
    """
    ends = (path[start:] for start in range(len(path)))
    return next((of_params[end] for end in ends if end in of_params), None)


def hash_words(stream: str, *path: Any) -> tuple[np.uint32, np.uint32]:
    """Two words that identify a stream and a leaf's path, the same in any process."""
    hasher = hashlib.blake2b(digest_size=8, person=b"optax_extras")
    for part in (stream, *map(_path_key, path)):
        # Attribute w and dict key "w" are the same name; 0 and "0" are not.
        encoded = repr(part).encode()
        hasher.update(len(encoded).to_bytes(8, "little") + encoded)
    low, high = np.frombuffer(hasher.digest(), "<u4")
    return np.uint32(low), np.uint32(high)


def _path_key(entry: Any) -> Any:
    """The index, dict key or attribute name behind an entry of a key path."""
    for attribute in ("key", "idx", "name"):
        if hasattr(entry, attribute):
            entry = getattr(entry, attribute)
            break
    if " at 0x" in repr(entry):
        raise TypeError(
            f"noise needs tree paths that are the same in every process, got the key"
            f" {entry!r}, whose repr contains a memory address"
        )
    return _built_in(entry)


def _built_in(key: Any) -> Any:
    """The built-in value that equals a NumPy, bool, float or enum key.

    JAX does not tell trees with equal keys apart: it compiles once for both. Members of
    a frozenset are sorted, because their order differs between processes.
    """
    if isinstance(key, tuple):
        return tuple(map(_built_in, key))
    if isinstance(key, frozenset):
        return sorted(repr(_built_in(member)) for member in key)
    if isinstance(key, bytes):
        return bytes(key)
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, (int, float, np.integer, np.floating, np.bool_)):
        return int(key) if key % 1 == 0 else float(key)
    return key

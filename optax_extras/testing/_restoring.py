"""States that are stored, and read back in another process."""

import io
import logging
import pickle
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optax_extras.testing import _compare
from optax_extras.testing._registry import NotApplicableError, check
from optax_extras.testing._subject import STEPS, Subject


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


def _goes_on(subject: Subject, restored: Any) -> None:
    """A run from the restored state ends in the very numbers of an unbroken one."""
    middle = subject.compiled[-2]
    _compare.same_types("the restored state", restored, middle.state)
    run = subject.advance(
        middle.params,
        state=restored,
        start=STEPS - 1,
        steps=1,
        update=subject.jitted,
    )
    last = subject.compiled[-1]
    _compare.equal("the updates after restoring", run.updates, last.updates)
    _compare.equal("the state after restoring", run.state, last.state)


@check()
def restored_from_arrays(subject: Subject) -> None:
    """A state written leaf by leaf with `np.savez` is read back and goes on exactly.

    Why: it is the format that every other tool reads.
    Fix: keep all that matters in arrays of numbers in the state; typed keys as
    `jax.random.key_data`.
    """
    _goes_on(subject, through_arrays(subject.compiled[-2].state))


@check()
def restored_from_pickle(subject: Subject) -> None:
    """A pickled state goes on exactly.

    Why: it is how multiprocessing, Ray and small scripts carry states.
    Fix: define the state's class at the top level of a module; no lambdas in it.
    """
    _goes_on(subject, through_pickle(subject.compiled[-2].state))


@check()
def restored_from_orbax(subject: Subject) -> None:
    """A state written with orbax goes on exactly.

    Why: it is the checkpoint library of flax and MaxText.
    Fix: build the state from named tuples, dictionaries, lists and arrays.
    """
    try:
        import orbax.checkpoint as ocp
    except ImportError as error:
        raise NotApplicableError("orbax-checkpoint is not installed") from error
    state = subject.compiled[-2].state
    if not jax.tree.leaves(state):
        raise NotApplicableError("its state is empty")
    arguments = ocp.args.PyTreeRestore(
        item=state,
        restore_args=ocp.checkpoint_utils.construct_restore_args(state),
    )
    level = logging.getLogger("absl").level
    logging.getLogger("absl").setLevel(logging.ERROR)  # it reports every file
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            ocp.PyTreeCheckpointer() as checkpointer,
        ):
            path = Path(folder) / "state"
            checkpointer.save(path, state)
            restored = checkpointer.restore(path, args=arguments)
    finally:
        logging.getLogger("absl").setLevel(level)
    _goes_on(subject, restored)

"""States that are stored, and read back in another process."""

import logging
import tempfile
from pathlib import Path
from typing import Any

import jax

from optax_extras.testing import _compare
from optax_extras.testing._registry import NotApplicableError, check
from optax_extras.testing._subject import STEPS, Subject
from optax_extras.testing.checks._round_trips import through_arrays, through_pickle


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


@check("advice")
def restored_from_arrays(subject: Subject) -> None:
    """A state written leaf by leaf with `np.savez` is read back and goes on exactly.

    Why: it is the format that every other tool reads.
    Source: this suite (advice).
    Fix: keep all that matters in arrays of numbers in the state; typed keys as
    `jax.random.key_data`.
    """
    _goes_on(subject, through_arrays(subject.compiled[-2].state))


@check("advice")
def restored_from_pickle(subject: Subject) -> None:
    """A pickled state goes on exactly.

    Why: it is how multiprocessing, Ray and small scripts carry states.
    Source: this suite (advice).
    Fix: define the state's class at the top level of a module; no lambdas in it.
    """
    _goes_on(subject, through_pickle(subject.compiled[-2].state))


@check("advice")
def restored_from_orbax(subject: Subject) -> None:
    """A state written with orbax goes on exactly.

    Why: it is the checkpoint library of flax and MaxText.
    Source: this suite (advice).
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

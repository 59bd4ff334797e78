"""Ctrl-C while JAX computes."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def interrupts_between_calls() -> Iterator[Callable[[], None]]:
    """Holds Ctrl-C back until the function given is called, and raises it there.

    Raised inside a running JAX computation it can end in a segmentation fault at exit.
    A second Ctrl-C is not held back. Where Ctrl-C raises nothing, as within another of
    these, in a background job or a thread, nothing changes.
    """
    pending = []

    def remember(*_: object) -> None:
        pending.append(True)
        signal.signal(signal.SIGINT, previous)

    def raise_pending() -> None:
        if pending:
            raise KeyboardInterrupt

    previous = signal.getsignal(signal.SIGINT)
    in_main = threading.current_thread() is threading.main_thread()
    if previous is not signal.default_int_handler or not in_main:
        yield raise_pending
        return
    signal.signal(signal.SIGINT, remember)
    try:
        yield raise_pending
    finally:
        signal.signal(signal.SIGINT, previous)

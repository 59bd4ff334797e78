"""Ctrl-C while JAX computes."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


class _Deferred:
    """SIGINT handler that records the first Ctrl-C and raises the second."""

    def __init__(self) -> None:
        self._pending = False

    def __call__(self, *_: object) -> None:
        self.raise_pending()
        self._pending = True

    def raise_pending(self) -> None:
        if self._pending:
            self._pending = False
            raise KeyboardInterrupt


@contextlib.contextmanager
def interrupts_between_calls() -> Iterator[Callable[[], None]]:
    """Defers Ctrl-C until the function that it yields is called, or until its end.

    KeyboardInterrupt inside a running JAX computation can end in a segmentation fault
    at exit. A second Ctrl-C is raised at once. Nested contexts share one deferral, that
    of the outermost. Outside of the main thread, and where SIGINT does not raise
    KeyboardInterrupt, as in a background job, nothing is deferred.
    """
    deferred = _Deferred()
    in_main = threading.current_thread() is threading.main_thread()
    installed = signal.getsignal(signal.SIGINT)
    if in_main and isinstance(installed, _Deferred):
        yield installed.raise_pending
    elif in_main and installed is signal.default_int_handler:
        signal.signal(signal.SIGINT, deferred)
        try:
            yield deferred.raise_pending
            deferred.raise_pending()
        finally:
            signal.signal(signal.SIGINT, installed)
    else:
        yield deferred.raise_pending

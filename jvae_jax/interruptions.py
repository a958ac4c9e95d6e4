"""SIGINT and SIGTERM as requests, so that what is in flight can be finished and saved."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from jvae_jax import hosts


class Interruption:
    """Whether someone asked to stop, as far as all processes know of it."""

    requested: int = 0
    """The signal that was sent to this process."""
    _agreed: int = 0

    def agree(self) -> bool:
        """Asks all processes, which must ask at the same point, whether any was to stop."""
        self._agreed = hosts.largest(self.requested)
        return bool(self)

    def __bool__(self) -> bool:
        return self._agreed > 0

    def leave(self) -> None:
        """Raises what stops a process in the way that was asked for.

        Raises:
            KeyboardInterrupt: after SIGINT.
            SystemExit: after SIGTERM, with status 0: nothing went wrong.
        """
        raise KeyboardInterrupt if self._agreed == signal.SIGINT else SystemExit(0)


@contextmanager
def interruptions() -> Iterator[Interruption]:
    """Takes note of the first signal; the second one ends the process at once.

    Only the main thread can; in others, signals do what they did before.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return

    def note(number: int, _frame: FrameType | None) -> None:
        interruption.requested = number
        signal.signal(number, signal.SIG_DFL)
        os.write(2, b"\nstopping as soon as the state is saved; once more to stop at once\n")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

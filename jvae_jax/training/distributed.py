"""Several processes, on one host or many, that train one model together.

Each trains on its own devices and draws their shares of a batch from its own copy of the data. The
state is the same in all, so the first one alone reads and writes the run's folder.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

Tree = TypeVar("Tree")

AUTO = "auto"
"""The coordinator's address where JAX finds by itself who takes part."""
_NOTICED_AFTER = 60
"""Seconds after which the others notice that a process is gone, at the latest."""


def check(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Raises ValueError unless :func:`connect` can be called with these."""
    address = coordinator not in (None, AUTO)
    if address and (":" not in str(coordinator) or None in (num_processes, process_id)):
        raise ValueError(
            "coordinator must be auto, or HOST:PORT with num_processes and process_id, got "
            f"{coordinator} with {num_processes} and {process_id}"
        )
    if not address and (num_processes, process_id) != (None, None):
        raise ValueError("num_processes and process_id need a coordinator that is HOST:PORT")
    if address and not 0 <= int(process_id or 0) < int(num_processes or 0):
        raise ValueError(f"process_id must be 0 to num_processes - 1, got {process_id}")


def connect(
    coordinator: str | None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Meets the other processes. Must be called before anything else of JAX.

    Args:
        coordinator: HOST:PORT of the first process, or ``auto`` on TPU pods, Slurm and whatever
            else ``jax.distributed.initialize()`` knows; None: there are no others.
        num_processes, process_id: how many there are, and which this is, from 0; not given
            where JAX finds the others.

    Raises:
        RuntimeError: if they can't be met.
    """
    if coordinator is None:
        return
    jax.distributed.initialize(
        None if coordinator == AUTO else coordinator,
        num_processes,
        process_id,
        heartbeat_timeout_seconds=_NOTICED_AFTER,
    )


def is_first() -> bool:
    """Whether this is the process that reads, writes and tells."""
    return jax.process_index() == 0


def tell(sentence: str) -> None:
    """Prints, in the first process."""
    if is_first():
        print(sentence, flush=True)


def from_first(tree: Tree) -> Tree:
    """The first process's values, in all of them; elsewhere only shapes and types matter."""
    if jax.process_count() == 1:
        return tree
    values: Tree = multihost_utils.broadcast_one_to_all(tree)
    return values


def largest(number: int) -> int:
    """The largest of the processes' numbers."""
    if jax.process_count() == 1:
        return number
    return int(np.max(multihost_utils.process_allgather(np.int32(number))))


class Interruption:
    """Whether someone asked to stop, as far as all processes know of it."""

    requested: int = 0
    """The signal that was sent to this process."""
    _agreed: int = 0

    def agree(self) -> bool:
        """Asks all processes, which must ask at the same point, whether any was to stop."""
        self._agreed = largest(self.requested)
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

"""Several processes, on one host or many, and signals that ask them to stop.

Each process trains on its own devices and takes their part of a batch from its own copy of the
data. The state is the same in all processes, so only the first one reads and writes the run's
folder.
"""

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jvae_jax.messages import describe_error

Tree = TypeVar("Tree")

AUTO = "auto"
"""Value of ``coordinator`` with which JAX detects the processes."""
_HEARTBEAT_TIMEOUT = 60
"""Maximum time until a lost process is detected, in seconds."""


def check(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Raises ValueError unless these are valid arguments of :func:`connect`."""
    has_address = coordinator not in (None, AUTO)
    if has_address and (":" not in str(coordinator) or None in (num_processes, process_id)):
        raise ValueError(
            "coordinator must be auto, or HOST:PORT with num_processes and process_id, got "
            f"{coordinator} with {num_processes} and {process_id}"
        )
    if not has_address and (num_processes, process_id) != (None, None):
        raise ValueError("num_processes and process_id need a coordinator that is HOST:PORT")
    if has_address and not 0 <= int(process_id or 0) < int(num_processes or 0):
        raise ValueError(f"process_id must be 0 to num_processes - 1, got {process_id}")


def connect(
    coordinator: str | None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Connects to the other processes. Must be called before any other use of JAX.

    Args:
        coordinator: HOST:PORT of the first process; ``auto`` to let JAX detect the cluster (TPU
            pods, Slurm); None for a single process.
        num_processes: number of processes; None if JAX detects them.
        process_id: index of this process, from 0; None if JAX detects it.

    Raises:
        RuntimeError: if the connection fails.
        ValueError: if the processes have different numbers of devices.
    """
    if coordinator is None:
        return
    jax.distributed.initialize(
        None if coordinator == AUTO else coordinator,
        num_processes,
        process_id,
        heartbeat_timeout_seconds=_HEARTBEAT_TIMEOUT,
    )
    # Gloo gives up after 30 seconds if a process arrives late at the first communication, but not
    # at later ones, and loading the data may take longer.
    gather(None)


def is_first() -> bool:
    """Returns whether this is the process that reads, writes and logs."""
    return jax.process_index() == 0


def broadcast_from_first(tree: Tree) -> Tree:
    """Broadcasts the first process's tree to all processes; shapes and dtypes must match."""
    if jax.process_count() == 1:
        return tree
    values: Tree = multihost_utils.broadcast_one_to_all(tree)
    return values


def maximum(number: int) -> int:
    """Returns the maximum over all processes."""
    if jax.process_count() == 1:
        return number
    return int(np.max(multihost_utils.process_allgather(np.int32(number))))


def gather(value: Any) -> list[Any]:
    """Returns the values of all processes, in their order.

    Args:
        value: value of this process; anything that JSON can express.

    Raises:
        ValueError: if the processes have different numbers of devices.
    """
    if jax.process_count() == 1:
        return [value]
    counts = Counter(device.process_index for device in jax.devices())
    if len(set(counts.values())) > 1:
        numbers = ", ".join(str(counts[process]) for process in sorted(counts))
        raise ValueError(f"all processes must have the same number of devices, got {numbers}")
    encoded = json.dumps(value).encode()
    padded = encoded.ljust(maximum(len(encoded)))
    gathered = multihost_utils.process_allgather(np.frombuffer(padded, np.uint8))
    return [json.loads(bytes(each)) for each in gathered]


def check_equal(settings: Mapping[str, Any]) -> None:
    """Checks that all processes have the same settings.

    Args:
        settings: settings of this process by name; anything that JSON can express.

    Raises:
        ValueError: in all processes, if they don't.
    """
    first, *others = gather(dict(settings))
    for process, other in enumerate(others, start=1):
        differences = [
            f"process {process} has {name} {other[name]!r} and process 0 has {first[name]!r}"
            for name in first
            if name in other and other[name] != first[name]
        ]
        if differences:
            raise ValueError(f"the processes differ: {'; '.join(differences)}")


@contextmanager
def fail_together() -> Iterator[None]:
    """Fails in all processes if the block fails in one. It must not communicate itself.

    Raises:
        RuntimeError: if the block failed in another process.
    """
    try:
        yield
    except Exception as error:
        with suppress(Exception):  # this error matters more than that the others are gone
            gather(describe_error(error))
        raise
    for process, message in enumerate(gather(None)):
        if message is not None:
            raise RuntimeError(f"process {process} failed: {message}")


class StopRequest:
    """A request to stop, on which all processes agree in :meth:`synchronize`."""

    signal_number: int = 0
    """Signal that this process received, or 0."""
    _agreed: int = 0

    def synchronize(self) -> bool:
        """Returns whether any process was asked to stop. All must call it at the same point."""
        self._agreed = maximum(self.signal_number)
        return bool(self)

    def __bool__(self) -> bool:
        return self._agreed > 0

    def exit(self) -> None:
        """Raises the exception that corresponds to the signal.

        Raises:
            KeyboardInterrupt: after SIGINT.
            SystemExit: after SIGTERM, with status 0.
        """
        raise KeyboardInterrupt if self._agreed == signal.SIGINT else SystemExit(0)


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turns the first SIGINT or SIGTERM into a request; the second one ends the process.

    Signals can be handled in the main thread only; in other threads nothing changes.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        request.signal_number = number
        signal.signal(number, signal.SIG_DFL)
        with suppress(OSError):  # stderr may be closed
            os.write(2, b"\nstopping once the state is saved; repeat to stop at once\n")

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

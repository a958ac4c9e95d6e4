"""Signals that stop a run, and connections between processes, without a second process."""

import os
import signal
import threading

import jax
import numpy as np
import pytest

from jvae_jax.training import distributed
from jvae_jax.training.distributed import StopRequest, stop_on_signals


@pytest.fixture
def handlers():
    """Handlers to restore if a test fails."""
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield previous
    for number, handler in previous.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "exception"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_first_signal_is_a_request_and_the_second_ends_the_process(
    handlers, number, exception, capfd
):
    with stop_on_signals() as stop:
        assert not stop.synchronize()
        assert not stop
        assert signal.getsignal(number) is not signal.SIG_DFL
        os.kill(os.getpid(), number)
        assert signal.getsignal(number) is signal.SIG_DFL
        # Only synchronize, which all processes call at the same point, may change the answer.
        assert not stop
        assert stop.synchronize()
        assert stop
        assert stop.signal_number == number
        with pytest.raises(exception) as info:
            stop.exit()
    assert getattr(info.value, "code", 0) == 0
    message = "\nstopping once the state is saved; repeat to stop at once\n"
    assert capfd.readouterr() == ("", message)
    assert {each: signal.getsignal(each) for each in handlers} == handlers


def test_handlers_are_restored_after_an_error(handlers):
    with pytest.raises(ArithmeticError), stop_on_signals():
        raise ArithmeticError
    assert {each: signal.getsignal(each) for each in handlers} == handlers


def test_other_threads_leave_the_handlers_alone(handlers):
    seen = []

    def enter():
        with stop_on_signals() as stop:
            seen.append({each: signal.getsignal(each) for each in handlers})
            seen.append(stop.synchronize())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [handlers, False]


def test_stops_if_another_process_was_asked_to(monkeypatch):
    """The exception is that of the highest signal, in all processes."""
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(
        distributed.multihost_utils,
        "process_allgather",
        lambda number: np.array([0, number, signal.SIGINT]),
    )
    stop = StopRequest()
    assert stop.synchronize()
    with pytest.raises(KeyboardInterrupt):
        stop.exit()
    stop.signal_number = signal.SIGTERM
    assert stop.synchronize()
    with pytest.raises(SystemExit):
        stop.exit()


def test_broadcast_asks_the_other_processes_only_if_there_are_some(monkeypatch):
    monkeypatch.setattr(
        distributed.multihost_utils, "broadcast_one_to_all", lambda tree: ("broadcast", tree)
    )
    assert distributed.broadcast_from_first(3) == 3
    assert distributed.maximum(3) == 3
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert distributed.broadcast_from_first(3) == ("broadcast", 3)


def test_first_process_has_index_zero(monkeypatch):
    assert distributed.is_first()
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert not distributed.is_first()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((None,), []),
        (("auto",), [(None, None, None, 60)]),
        (("host:1", 4, 3), [("host:1", 4, 3, 60)]),
    ],
)
def test_connects_to_the_coordinator(monkeypatch, arguments, expected):
    calls = []

    def initialize(address, count, index, *, heartbeat_timeout_seconds):
        calls.append((address, count, index, heartbeat_timeout_seconds))

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    distributed.connect(*arguments)
    assert calls == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ("host:1", None, 0),
        ("host:1", 2, None),
        ("host", 2, 0),
        ("auto", 2, None),
        ("auto", None, 0),
        (None, 2, None),
        (None, None, 0),
        ("host:1", 2, 2),
        ("host:1", 2, -1),
        ("host:1", 0, 0),
    ],
)
def test_rejects_incomplete_connections(arguments):
    with pytest.raises(ValueError, match=r"coordinator|process_id"):
        distributed.check(*arguments)


@pytest.mark.parametrize(
    "arguments", [(None, None, None), ("auto", None, None), ("host:1", 1, 0), ("[::1]:8", 3, 2)]
)
def test_accepts_complete_connections(arguments):
    distributed.check(*arguments)

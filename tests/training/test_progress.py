"""Progress as lines and as a bar."""

import io

import pytest

from jvae_jax.training.progress import ProgressReport


class Terminal(io.StringIO):
    def isatty(self):
        return True


def report_on(stream):
    with ProgressReport(
        epochs=4, steps_per_epoch=10, batch_size=50, step=10, stream=stream
    ) as report:
        report.steps(15, {"loss": 123.456})
        report.steps(20, {"loss": 100.0})
        report.epoch(20, {"loss": 111.0}, {"kl_z": 5.01234})
    return stream.getvalue()


def test_prints_one_line_per_epoch_without_terminal():
    (line,) = report_on(io.StringIO()).splitlines()
    assert line.startswith("epoch 2/4 | train loss 111 | test kl_z 5.012 | ")
    assert "images/s" in line
    assert line.endswith(" left")


def test_shows_bar_on_terminal():
    last = report_on(Terminal()).split("\r")[-1]
    assert last.startswith("epoch 3/4:  50%")
    assert "1.00k/2.00k" in last
    assert "loss 100" in last


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_closes_bar_on_error(stream):
    with (
        pytest.raises(ArithmeticError),
        ProgressReport(epochs=1, steps_per_epoch=1, batch_size=1, step=0, stream=stream()),
    ):
        raise ArithmeticError


def test_line_has_speed_and_remaining_time(monkeypatch):
    """Resumed at step 10 of 40; 10 steps of 50 images took 8 seconds, 20 steps are left."""
    clock = iter([100.0, 108.0, 4100.0])
    monkeypatch.setattr("jvae_jax.training.progress.time.monotonic", lambda: next(clock))
    stream = io.StringIO()
    with ProgressReport(
        epochs=4, steps_per_epoch=10, batch_size=50, step=10, stream=stream
    ) as report:
        report.epoch(20, {"loss": 1.0, "kl_z": 2.5}, {"kl_z": 5.0})
        report.epoch(30, {"loss": 12345.678}, {"kl_z": 0.00123456})
    assert stream.getvalue().splitlines() == [
        "epoch 2/4 | train loss 1  kl_z 2.5 | test kl_z 5 | 62 images/s | 0:00:16 left",
        "epoch 3/4 | train loss 1.235e+04 | test kl_z 0.001235 | 0 images/s | 0:33:20 left",
    ]


def test_speed_has_thousands_separators(monkeypatch):
    clock = iter([0.0, 0.5])
    monkeypatch.setattr("jvae_jax.training.progress.time.monotonic", lambda: next(clock))
    stream = io.StringIO()
    with ProgressReport(
        epochs=1, steps_per_epoch=100, batch_size=64, step=0, stream=stream
    ) as report:
        report.epoch(100, {"loss": 1.0}, {"kl_z": 5.0})
    assert stream.getvalue().endswith(" | 12,800 images/s | 0:00:00 left\n")


def test_bar_counts_images_and_names_terms():
    stream = Terminal()
    with ProgressReport(
        epochs=2, steps_per_epoch=10, batch_size=5, step=4, stream=stream
    ) as report:
        report.steps(6, {"loss": 2.0})
        report.steps(20, {"loss": 1.5, "kl_z": 0.25})
        report.epoch(20, {"loss": 111.0}, {"kl_z": 5.0})
    frames = stream.getvalue().split("\r")
    assert "20.0/100" in frames[1]
    last = frames[-1]
    assert last.startswith("epoch 2/2: 100%")
    assert "100/100" in last
    assert " images/s, loss 1.5  kl_z 0.25" in last
    assert "111" not in stream.getvalue()
    assert stream.getvalue().endswith("\n")

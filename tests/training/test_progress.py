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

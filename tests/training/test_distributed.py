"""Several processes that train together, on one machine and by gloo."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from jvae_jax import TrainConfig
from jvae_jax.training.run import load_run

ROOT = Path(__file__).parents[2]
SMALL = [
    "--dataset=mnist_5k",
    "--image_size=8",
    "--batch_size=400",
    "--latents=3",
    "--save_every=1",
]
NOTICED_WITHIN = 120
"""Seconds."""


def processes(folder, *flags, count=2, devices=2):
    """As many, started; each has so many CPU devices and writes into a file of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    started = []
    for number in range(count):
        together = [f"--coordinator={address}", f"--num_processes={count}"]
        together = [*together, f"--process_id={number}"] if count > 1 else []
        environment = {
            **os.environ,
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} "
            "--xla_backend_optimization_level=0",
        }
        command = [sys.executable, str(ROOT / "experiments" / "train.py"), *SMALL, *flags]
        with (folder / f"{number}.txt").open("w") as output:
            started.append(
                subprocess.Popen(
                    [*command, *together],
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=folder,
                    env=environment,
                )
            )
    return started


def finish(started, seconds=240):
    return [process.wait(timeout=seconds) for process in started]


def told(folder, number):
    return (folder / f"{number}.txt").read_text()


def wait_for(folder, number, pattern, seconds=240):
    started = time.monotonic()
    while not re.search(pattern, told(folder, number)):
        assert time.monotonic() - started < seconds, told(folder, number)
        time.sleep(0.05)


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Twelve epochs of 10 steps by two processes with two devices each, never stopped."""
    folder = tmp_path_factory.mktemp("hosts")
    codes = finish(processes(folder, "--epochs=12", "--workdir=together"))
    assert codes == [0, 0], told(folder, 0) + told(folder, 1)
    return folder


@pytest.mark.long
def test_only_the_first_tells_and_writes(together):
    first, second = told(together, 0), told(together, 1)
    # The other's text isn't empty: gloo's threads write there, at times into each other's lines.
    for text in (
        "120 steps, 12 epochs of 10, on 4 x cpu of 2 processes",
        "epoch 12/12",
        "accuracy",
    ):
        assert text in first
        assert text not in second
    lines = (together / "together" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 13))


@pytest.mark.long
def test_two_processes_are_as_one(tmp_path):
    """The same parameters as on one device, to rounding, which Adam makes more of."""
    assert finish(processes(tmp_path, "--epochs=1", "--workdir=two")) == [0, 0]
    assert finish(processes(tmp_path, "--epochs=1", "--workdir=one", count=1, devices=1)) == [0]
    one, two = (load_run(tmp_path / name).load_state() for name in ("one", "two"))
    assert int(one.step) == 10
    assert_near = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
    jax.tree.map(assert_near, one.variables, two.variables)


@pytest.mark.long
def test_one_is_killed_and_all_go_on_as_never_stopped(tmp_path, together):
    flags = ["--epochs=12", "--workdir=killed"]
    first, second = processes(tmp_path, *flags)
    wait_for(tmp_path, 0, "epoch 2/12")
    second.kill()
    second.wait()
    assert first.wait(timeout=NOTICED_WITHIN) not in (0, None)
    assert "error" in told(tmp_path, 0).lower()
    assert finish(processes(tmp_path, *flags)) == [0, 0]
    assert "going on from step" in told(tmp_path, 0)
    states = [load_run(path).load_state() for path in (tmp_path / "killed", together / "together")]
    jax.tree.map(np.testing.assert_array_equal, *states)
    metrics = [path / "metrics.jsonl" for path in (tmp_path / "killed", together / "together")]
    assert metrics[0].read_text() == metrics[1].read_text()


@pytest.mark.long
def test_asked_to_stop_all_do(tmp_path):
    """Whichever of them is asked."""
    started = processes(tmp_path, "--epochs=400", "--workdir=stopped")
    wait_for(tmp_path, 0, "epoch 1/400")
    started[1].send_signal(signal.SIGTERM)
    assert finish(started, NOTICED_WITHIN) == [0, 0]
    assert 10 <= int(load_run(tmp_path / "stopped").load_state().step) < 4000


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"coordinator": "host:1"}, "HOST:PORT with num_processes and process_id, got host:1 with"),
        ({"coordinator": "host", "num_processes": 2, "process_id": 0}, "HOST:PORT"),
        ({"num_processes": 2}, "need a coordinator"),
        (
            {"coordinator": "h:1", "num_processes": 2, "process_id": 2},
            "0 to num_processes - 1",
        ),
    ],
)
def test_what_cannot_meet_is_told(flags, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**flags)

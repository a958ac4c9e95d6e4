"""Training by several processes on one machine, over gloo."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import stroke_image

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
DETECTION_SECONDS = 120
"""Time within which the end of another process must be noticed."""


def start_processes(folder, *flags, count=2, devices=2, second=(), **second_environment):
    """Starts processes with ``devices`` CPU devices each; each writes its output to a file.

    ``second`` and ``second_environment`` are further flags and variables of the second process.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = []
    for number in range(count):
        distributed_flags = [f"--coordinator={address}", f"--num_processes={count}"]
        distributed_flags = [*distributed_flags, f"--process_id={number}"] if count > 1 else []
        environment = {
            **os.environ,
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} "
            "--xla_backend_optimization_level=0",
        }
        command = [sys.executable, str(ROOT / "experiments" / "train.py"), *SMALL, *flags]
        if number == 1:
            command += second
            environment |= second_environment
        with (folder / f"{number}.txt").open("w") as output:
            processes.append(
                subprocess.Popen(
                    [*command, *distributed_flags],
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=folder,
                    env=environment,
                )
            )
    return processes


def wait_all(processes, seconds=240):
    return [process.wait(timeout=seconds) for process in processes]


def output_of(folder, number):
    return (folder / f"{number}.txt").read_text()


def wait_for(folder, number, pattern, seconds=240):
    started = time.monotonic()
    while not re.search(pattern, output_of(folder, number)):
        assert time.monotonic() - started < seconds, output_of(folder, number)
        time.sleep(0.05)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Twelve epochs of 10 steps by two processes with two devices each."""
    folder = tmp_path_factory.mktemp("processes")
    codes = wait_all(start_processes(folder, "--epochs=12", "--workdir=run"))
    assert codes == [0, 0], output_of(folder, 0) + output_of(folder, 1)
    return folder


@pytest.mark.long
def test_only_first_process_prints_and_writes(uninterrupted):
    first, second = output_of(uninterrupted, 0), output_of(uninterrupted, 1)
    # The second output isn't empty: gloo's threads write to it.
    for text in (
        "120 steps (epochs: 12, steps per epoch: 10) on 4 x cpu of 2 processes",
        "epoch 12/12",
        "accuracy",
    ):
        assert text in first
        assert text not in second
    lines = (uninterrupted / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 13))


@pytest.mark.long
def test_two_processes_match_one_device(tmp_path):
    """The parameters are equal up to rounding, which Adam amplifies."""
    assert wait_all(start_processes(tmp_path, "--epochs=1", "--workdir=two")) == [0, 0]
    assert wait_all(
        start_processes(tmp_path, "--epochs=1", "--workdir=one", count=1, devices=1)
    ) == [0]
    one, two = (load_run(tmp_path / name).load_state() for name in ("one", "two"))
    assert int(one.step) == 10
    assert_near = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
    jax.tree.map(assert_near, one.variables, two.variables)


@pytest.mark.long
def test_first_process_matches_c_to_labels(tmp_path):
    """As one process with as many devices does, up to rounding, which Adam amplifies."""
    flags = ["--num_labels=10", "--unsupervised_epochs=1", "--epochs=2"]
    assert wait_all(start_processes(tmp_path, *flags, "--workdir=two")) == [0, 0]
    matched = "matched c to the labels"
    assert [matched in output_of(tmp_path, number) for number in (0, 1)] == [True, False]
    assert wait_all(start_processes(tmp_path, *flags, "--workdir=one", count=1, devices=4)) == [0]
    runs = [load_run(tmp_path / name) for name in ("one", "two")]
    images = runs[0].load_dataset().test_images
    one, two = (np.argmax(run.model.encode(images).logits, axis=-1) for run in runs)
    assert np.mean(one == two) > 0.95


@pytest.mark.long
@pytest.mark.parametrize("source", ["first", "label propagation"])
def test_first_process_gives_pseudo_labels(tmp_path, source):
    """To all processes, which then train as one process does."""
    flags = ["--num_labels=10", "--epochs=1", "--label_propagation"]
    if source == "first":
        first = ["--epochs=1", "--workdir=first"]
        assert wait_all(start_processes(tmp_path, *first, count=1)) == [0]
        flags = ["--num_labels=10", "--epochs=1", "--pseudo_labels_from=first"]
    assert wait_all(start_processes(tmp_path, *flags, "--workdir=two")) == [0, 0]
    labelled = f"more images have labels by {source}"
    assert [labelled in output_of(tmp_path, number) for number in (0, 1)] == [True, False]
    assert wait_all(start_processes(tmp_path, *flags, "--workdir=one", count=1, devices=4)) == [0]
    one, two = (load_run(tmp_path / name) for name in ("one", "two"))
    labels = [np.load(run.workdir / "pseudo_labels.npy") for run in (one, two)]
    np.testing.assert_array_equal(*labels)
    assert np.sum(labels[0] >= 0) > 100
    images = one.load_dataset().test_images
    read = [np.argmax(run.model.encode(images).logits, axis=-1) for run in (one, two)]
    assert np.mean(read[0] == read[1]) > 0.95


@pytest.mark.long
def test_shard_map_and_host_data_change_nothing(tmp_path, uninterrupted):
    """Bit for bit, with two processes, and with eight devices of one."""
    other = ["--parallel=shard_map", "--data_on=host"]
    flags = ["--epochs=12", "--workdir=run", *other]
    assert wait_all(start_processes(tmp_path, *flags)) == [0, 0]
    runs = [tmp_path / "run", uninterrupted / "run"]
    for name, flags in (("default", []), ("other", other)):
        flags = ["--epochs=1", f"--workdir={name}", *flags]
        assert wait_all(start_processes(tmp_path, *flags, count=1, devices=8)) == [0]
        runs.append(tmp_path / name)
    for one, other in (runs[:2], runs[2:]):
        jax.tree.map(
            np.testing.assert_array_equal, load_run(one).load_state(), load_run(other).load_state()
        )
        metrics = [path / "metrics.jsonl" for path in (one, other)]
        assert metrics[0].read_text() == metrics[1].read_text()


@pytest.mark.long
@pytest.mark.fault(
    "processes",
    "one of the processes is killed",
    "the others end; the same commands resume to the same result",
)
def test_resumes_identically_after_a_process_is_killed(tmp_path, uninterrupted):
    flags = ["--epochs=12", "--workdir=killed"]
    first, second = start_processes(tmp_path, *flags)
    wait_for(tmp_path, 0, "epoch 2/12")
    second.kill()
    second.wait()
    assert first.wait(timeout=DETECTION_SECONDS) not in (0, None)
    assert "error" in output_of(tmp_path, 0).lower()
    assert wait_all(start_processes(tmp_path, *flags)) == [0, 0]
    assert "resuming from step" in output_of(tmp_path, 0)
    runs = (tmp_path / "killed", uninterrupted / "run")
    jax.tree.map(np.testing.assert_array_equal, *(load_run(path).load_state() for path in runs))
    metrics = [path / "metrics.jsonl" for path in runs]
    assert metrics[0].read_text() == metrics[1].read_text()


@pytest.mark.long
def test_signal_to_any_process_stops_all(tmp_path):
    processes = start_processes(tmp_path, "--epochs=400", "--workdir=stopped")
    wait_for(tmp_path, 0, "epoch 1/400")
    processes[1].send_signal(signal.SIGTERM)
    assert wait_all(processes, DETECTION_SECONDS) == [0, 0]
    assert 10 <= int(load_run(tmp_path / "stopped").load_state().step) < 4000


START_SECONDS = 100
"""Time within which processes that can't train together must end; here they need 20."""


def assert_refused(processes, folder, codes, messages):
    assert wait_all(processes, START_SECONDS) == codes
    for number, message in enumerate(messages):
        assert message in output_of(folder, number)
    assert not (folder / "run").exists()


@pytest.mark.long
@pytest.mark.fault(
    "processes",
    "another setting, package or option of JAX in one of the processes",
    "an error in all before the first step that names it and its values",
)
@pytest.mark.parametrize("fault", ["settings", "surroundings"])
def test_refuses_processes_that_differ(fault, tmp_path):
    # The metadata that Python finds first give the version.
    metadata = tmp_path / "packages" / "optax-0.0.1.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: optax\nVersion: 0.0.1\n")
    flags, variables, message = {
        "settings": (
            ["--epochs=3", "--beta=4", "--workdir=elsewhere", "--profile"],
            {},
            "error: the processes differ: process 1 has epochs 3 and process 0 has 2; "
            "process 1 has beta 4.0 and process 0 has 30.0\n",
        ),
        "surroundings": (
            [],
            {
                "PYTHONPATH": os.pathsep.join(
                    [str(metadata.parents[1]), os.environ.get("PYTHONPATH", "")]
                ),
                "JAX_DEFAULT_MATMUL_PRECISION": "highest",
            },
            f"error: the processes differ: process 1 has optax '0.0.1' and process 0 has "
            f"'{version('optax')}'; process 1 has jax_default_matmul_precision 'highest' and "
            "process 0 has 'None'\n",
        ),
    }[fault]
    processes = start_processes(tmp_path, "--epochs=2", "--workdir=run", second=flags, **variables)
    assert_refused(processes, tmp_path, [2, 2], [message, message])


@pytest.mark.long
@pytest.mark.fault(
    "processes",
    "other data in one of the processes",
    "an error in all before the first step that names the fingerprints",
)
def test_refuses_processes_with_other_data(tmp_path):
    for name, ink in (("first", 0), ("second", 9)):
        for label in "ab":
            (tmp_path / name / label).mkdir(parents=True)
            for number in range(10):
                stroke_image(ink=ink).save(tmp_path / name / label / f"{number}.png")
    flags = ["--dataset=folder", "--batch_size=4", "--epochs=2", "--workdir=run"]
    processes = start_processes(tmp_path, *flags, "--data_dir=first", second=["--data_dir=second"])
    message = "error: the processes differ: process 1 has data with fingerprint '"
    assert_refused(processes, tmp_path, [2, 2], [message, message])


@pytest.mark.long
@pytest.mark.fault(
    "processes",
    "another number of devices in one of the processes",
    "an error in all before the first step that names the numbers",
)
def test_refuses_processes_with_other_numbers_of_devices(tmp_path):
    processes = start_processes(
        tmp_path, "--workdir=run", XLA_FLAGS="--xla_force_host_platform_device_count=3"
    )
    message = "error: all processes must have the same number of devices, got 2, 3\n"
    assert_refused(processes, tmp_path, [2, 2], [message, message])


@pytest.mark.long
@pytest.mark.fault(
    "processes",
    "one of the processes can't read its data",
    "the others end at once with its error",
)
def test_all_end_if_one_cannot_read_its_data(tmp_path):
    processes = start_processes(tmp_path, "--workdir=run", second=["--dataset=missing.npz"])
    error = "missing.npz: No such file or directory\n"
    messages = [f"error: process 1 failed: {error}", f"error: {error}"]
    assert_refused(processes, tmp_path, [1, 1], messages)


@pytest.mark.long
@pytest.mark.fault(
    "processes",
    "the first process can't use the run's folder",
    "the others end at once with its error",
)
def test_all_end_if_first_cannot_use_its_folder(tmp_path):
    (tmp_path / "thesis.tex").write_text("ten years")
    processes = start_processes(tmp_path, f"--workdir={tmp_path}", second=["--workdir=run"])
    error = f"{tmp_path} contains something that isn't a run; choose another --workdir\n"
    messages = [f"error: {error}", f"error: process 0 failed: {error}"]
    assert_refused(processes, tmp_path, [2, 1], messages)


@pytest.mark.long
@pytest.mark.fault(
    "processes",
    "the first process can't write while it trains",
    "the others end at once with its error",
)
def test_all_end_if_first_cannot_write(tmp_path):
    processes = start_processes(tmp_path, "--epochs=400", "--workdir=run", "--save_every=100")
    wait_for(tmp_path, 0, "epoch 1/400")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    (tmp_path / "run" / "metrics.jsonl").mkdir()
    assert wait_all(processes, START_SECONDS) == [1, 1]
    error = "run/metrics.jsonl: Is a directory\n"
    assert f"error: {error}" in output_of(tmp_path, 0)
    assert f"error: process 0 failed: {error}" in output_of(tmp_path, 1)


@pytest.mark.long
@pytest.mark.fault(
    "run folder",
    "a second training of a run",
    "refused while the first lives; the first one's result is the same",
)
def test_second_training_of_a_run_is_refused(tmp_path):
    def start(folder, workdir):
        (tmp_path / folder).mkdir()
        flags = ["--epochs=12", f"--workdir={tmp_path / workdir}"]
        return start_processes(tmp_path / folder, *flags, count=1, devices=1)

    first = start("first", "run")
    wait_for(tmp_path / "first", 0, "epoch 1/12")
    os.kill(first[0].pid, signal.SIGSTOP)
    assert wait_all(start("second", "run")) == [1]
    message = f"error: another process is training in {tmp_path / 'run'}; wait until it ends"
    assert message in output_of(tmp_path / "second", 0)
    os.kill(first[0].pid, signal.SIGCONT)
    assert wait_all(first) == [0]
    assert wait_all(start("third", "alone")) == [0]
    runs = (tmp_path / "run", tmp_path / "alone")
    jax.tree.map(np.testing.assert_array_equal, *(load_run(path).load_state() for path in runs))
    for name in ("metrics.jsonl", "samples.png", "evaluation.json"):
        assert (runs[0] / name).read_bytes() == (runs[1] / name).read_bytes()


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
@pytest.mark.fault(
    "flags", "flags of several processes that are incomplete", "refused, naming what is needed"
)
def test_rejects_incomplete_distributed_flags(flags, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**flags)

"""The folder of a run: compatibility checks, format, and loading."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import jax
import pytest
from helpers import SMALL, log_messages, make_dataset

from jvae_jax import data, load
from jvae_jax.objectives import JointVAE, Ours
from jvae_jax.training import checkpoints, loop
from jvae_jax.training.config import TrainConfig
from jvae_jax.training.loop import fit
from jvae_jax.training.run import dataset_name, load_run, plan_run


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"objective": Ours(beta=3.0), "seed": 1},
            "seed is 0 there and 1 here; beta is 30.0 there and 3.0 here",
        ),
        # Neither settings that follow from epochs nor data that follow from num_labels.
        ({"epochs": 3}, r"another run: epochs is 4 there and 3 here\. Resume"),
        ({"num_labels": 9}, r"another run: num_labels is 'all' there and 9 here\. Resume"),
        ({"objective": JointVAE()}, "objective is 'ours' there and 'joint_vae' here"),
    ],
)
@pytest.mark.fault(
    "run folder", "resuming with other settings", "refused, naming each setting and both values"
)
def test_rejects_resuming_with_other_configuration(reference, changes, message):
    run, _ = reference
    with pytest.raises(ValueError, match=message):
        fit(replace(SMALL, workdir=str(run.workdir), **changes), make_dataset())


@pytest.mark.fault(
    "run folder", "resuming or evaluating with other data", "refused, naming the fingerprints"
)
def test_rejects_other_data(reference):
    run, _ = reference
    variables = run.model.variables
    with pytest.raises(ValueError, match="fingerprint is"):
        fit(replace(SMALL, workdir=str(run.workdir)), make_dataset(seed=1))
    with pytest.raises(ValueError, match="was trained on other data: fingerprint is"):
        loop.evaluate_run(run, make_dataset(seed=1), variables, step=24)


def test_rejects_other_number_of_channels(reference):
    run, _ = reference
    variables = run.model.variables
    message = r"image_shape is \(8, 8, 1\) there and \(8, 8, 3\) here"
    with pytest.raises(ValueError, match=message):
        fit(replace(SMALL, workdir=str(run.workdir)), make_dataset(channels=3))
    with pytest.raises(ValueError, match=message):
        loop.evaluate_run(run, make_dataset(channels=3), variables, step=24)


@pytest.mark.fault(
    "run folder", "workdir that is a file or contains something else", "refused, unchanged"
)
def test_rejects_folder_that_is_not_a_run(tmp_path):
    (tmp_path / "thesis.tex").write_text("ten years")
    with pytest.raises(ValueError, match="contains something that isn't a run"):
        fit(replace(SMALL, workdir=str(tmp_path)), make_dataset())
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match="contains something that isn't a run"):
        fit(replace(SMALL, workdir=str(file)), make_dataset())
    assert (tmp_path / "thesis.tex").read_text() == "ten years"


def test_reports_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file/run"):
        fit(replace(SMALL, workdir=str(tmp_path / "file" / "run")), make_dataset())


HOLDER = """
import sys
from pathlib import Path
from jvae_jax.training.run import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""
"""Locks a run's folder until its standard input is closed."""


def contents_of(folder):
    return {
        path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in folder.rglob("*")
    }


def dangling_link(folder):
    (folder / "run").symlink_to(folder / "nothing")
    return folder / "run"


def below_dangling_link(folder):
    return dangling_link(folder) / "mnist"


def loop_of_links(folder):
    (folder / "run").symlink_to(folder / "again")
    (folder / "again").symlink_to(folder / "run")
    return folder / "run"


def below_file(folder):
    (folder / "file").write_text("")
    return folder / "file" / "run" / "mnist"


@pytest.mark.fault(
    "run folder",
    "training in a folder in which another process trains",
    "refused, and nothing is changed; free as soon as that process is killed",
)
def test_only_one_process_trains_in_a_folder(reference, tmp_path):
    run, _ = reference
    workdir = tmp_path / "run"
    shutil.copytree(run.workdir, workdir)
    (workdir / "evaluation.json").unlink()
    # Training would drop this line.
    with (workdir / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"epoch": 5}\n')
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, workdir],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    with holder:
        try:
            assert holder.stdout.readline() == b"locked\n"
            before = contents_of(workdir)
            with pytest.raises(RuntimeError, match=f"^another process is training in {workdir};"):
                train_in(workdir)
            assert contents_of(workdir) == before
        finally:
            holder.kill()
    train_in(workdir)
    for name in ("metrics.jsonl", "evaluation.json"):
        assert (workdir / name).read_bytes() == (run.workdir / name).read_bytes()


@pytest.mark.fault(
    "run folder",
    "two trainings of a process in one folder",
    "the second is refused; the first one's result is the same",
)
def test_only_one_thread_trains_in_a_folder(reference, tmp_path):
    run, _ = reference
    refusals = []

    def train_again(_):
        with ThreadPoolExecutor(1) as pool:
            for train in (train_in, lambda folder: pool.submit(train_in, folder).result()):
                with pytest.raises(RuntimeError, match="another process is training in") as info:
                    train(tmp_path / "run")
                refusals.append(info.value)

    fit(replace(SMALL, workdir=str(tmp_path / "run")), make_dataset(), on_samples=train_again)
    assert len(refusals) == 2 * SMALL.epochs
    for name in ("metrics.jsonl", "evaluation.json", "samples.png"):
        assert (tmp_path / "run" / name).read_bytes() == (run.workdir / name).read_bytes()


def test_finished_run_needs_no_lock(reference, tmp_path):
    """So it may lie in a folder that can't be written, or be evaluated twice at once."""
    run, _ = reference
    shutil.copytree(run.workdir, tmp_path / "run", ignore=shutil.ignore_patterns(".lock"))
    folders = [tmp_path / "run", *filter(Path.is_dir, (tmp_path / "run").rglob("*"))]
    for folder in folders:
        folder.chmod(0o555)
    before = contents_of(tmp_path / "run")
    try:
        with log_messages() as messages:
            train_in(tmp_path / "run")
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert "is finished: all 24 steps" in messages[-1]
    assert contents_of(tmp_path / "run") == before
    # Without its last checkpoint, it is trained again.
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "24")
    train_in(tmp_path / "run")
    assert (tmp_path / "run" / ".lock").exists()
    assert (tmp_path / "run" / "checkpoints" / "24").exists()


WARNING = "this environment isn't the one in which the run was started ("


def resume(folder, change=lambda _: None, **options):
    """Evaluates a trained run whose config.json has another environment.

    Returns:
        The warnings that name differences.
    """
    path = folder / "config.json"
    contents = json.loads(path.read_text())
    change(contents)
    path.write_text(json.dumps(contents))
    (folder / "evaluation.json").unlink()
    with log_messages() as messages:
        fit(replace(SMALL, workdir=str(folder)), make_dataset(), **options)
    return [message for message in messages if message.startswith(WARNING)]


@pytest.mark.fault(
    "environment",
    "resuming with other versions, devices, compiler flags or options of JAX",
    "one warning that names each difference",
)
def test_resuming_elsewhere_warns_that_result_may_differ(reference, tmp_path, monkeypatch):
    run, _ = reference
    shutil.copytree(run.workdir, tmp_path / "run")
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--xla_tpu_fast=1 --xla_dump_to=x --cache=/home/me")

    def change(contents):
        contents["environment"] |= {"jax": "0.7.0", "numpy": "2.0.0", "machine": "an abacus"}

    with jax.default_matmul_precision("highest"):
        (warning,) = resume(tmp_path / "run", change, devices=jax.devices()[:1])
    differences = warning.removeprefix(WARNING).partition(")")[0].split("; ")
    assert sorted(each for each in differences if not each.startswith("machine")) == [
        "LIBTPU_INIT_ARGS is '' there and '--xla_tpu_fast=1' here",
        "devices is '2 x cpu' there and '1 x cpu' here",
        f"jax is '0.7.0' there and '{jax.__version__}' here",
        "jax_default_matmul_precision is 'None' there and 'highest' here",
    ]
    # On a CPU, compiled programs depend on its model.
    assert any(each.startswith("machine is 'an abacus' there and ") for each in differences)
    assert warning.endswith("the result may not equal that of an uninterrupted run bit for bit")


def test_resuming_in_same_environment_warns_of_nothing(reference, tmp_path):
    run, _ = reference
    shutil.copytree(run.workdir, tmp_path / "run")
    assert not resume(tmp_path / "run")
    # Earlier versions recorded less.
    assert not resume(tmp_path / "run", lambda contents: contents["environment"].pop("XLA_FLAGS"))
    assert not resume(tmp_path / "run", lambda contents: contents["environment"].clear())
    assert not resume(tmp_path / "run", lambda contents: contents.pop("environment"))


@pytest.mark.fault(
    "run folder",
    "workdir that is a dangling link, a loop of links, below a file, too long, or with a NUL",
    "one short sentence; nothing is created",
)
@pytest.mark.parametrize(
    ("make_path", "error", "message"),
    [
        (dangling_link, FileNotFoundError, "run is a symbolic link to .*nothing, which doesn't"),
        (below_dangling_link, FileNotFoundError, "run is a symbolic link to .*nothing, which"),
        (loop_of_links, OSError, "run' can't be the folder of a run: Too many levels of symbolic"),
        (below_file, OSError, "file/run/mnist' can't be the folder of a run: Not a directory"),
        (lambda folder: folder / ("x" * 300), OSError, "xxx' can't be .*: File name too long"),
        (lambda folder: folder / ("x/" * 5000), OSError, "can't be .*: File name too long"),
        (lambda folder: folder / "a\0b", ValueError, r"a\\x00b' can't be .*: (stat: )?embedded"),
    ],
)
def test_rejects_impossible_workdir(make_path, error, message, tmp_path):
    path = make_path(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    config = replace(SMALL, workdir=str(path))
    calls = [
        lambda: fit(config, make_dataset()),
        lambda: load(path),
        lambda: dataset_name(replace(config, dataset="auto")),
    ]
    for call in calls:
        with pytest.raises(error, match=message) as info:
            call()
        assert "\n" not in str(info.value)
        assert len(str(info.value)) < 500
    assert sorted(tmp_path.rglob("*")) == before


def test_workdir_may_be_link_to_folder(reference, tmp_path):
    run, _ = reference
    shutil.copytree(run.workdir, tmp_path / "disk" / "run")
    (tmp_path / "run").symlink_to(tmp_path / "disk" / "run")
    with log_messages() as messages:
        fit(replace(SMALL, workdir=str(tmp_path / "run")), make_dataset())
    assert "is finished" in messages[-1]
    assert load(tmp_path / "run").class_names == run.data.class_names


SPECIAL = {
    "FIFO": lambda path, _: os.mkfifo(path),
    "folder": lambda path, _: path.mkdir(),
    "link to a file": lambda path, outside: path.symlink_to(outside / "file"),
    "link to a folder": lambda path, outside: path.symlink_to(outside),
    "dangling link": lambda path, outside: path.symlink_to(outside / "nothing"),
    "file": lambda path, _: path.write_text("mine"),
}


def state_of(folder):
    states = {path: path.lstat() for path in folder.rglob("*")}
    return {path: (state.st_mode, state.st_mtime_ns) for path, state in states.items()}


@pytest.mark.fault(
    "run folder",
    "link, FIFO, folder or file where training writes another kind of file",
    "refused before training, naming it; nothing is changed, here or elsewhere",
)
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *itertools.product(
            ["config.json", "metrics.jsonl", "samples.png", "curves.png", "evaluation.json"],
            sorted(SPECIAL.keys() - {"file"}),
        ),
        *itertools.product(
            ["checkpoints", "damaged_checkpoints", "profile", "tensorboard", "wandb"],
            sorted(SPECIAL.keys() - {"folder"}),
        ),
    ],
)
def test_training_refuses_special_files(name, kind, reference, tmp_path):
    run, _ = reference
    workdir, outside = tmp_path / "run", tmp_path / "outside"
    shutil.copytree(run.workdir, workdir, ignore=shutil.ignore_patterns(name))
    outside.mkdir()
    (outside / "file").write_text("mine")
    SPECIAL[kind](workdir / name, outside)
    before = state_of(tmp_path)
    reason = "a symbolic link" if "link" in kind else "not a regular file|not a folder"
    with pytest.raises(FileExistsError, match=f"run/{name} is ({reason})[,;]"):
        fit(replace(SMALL, workdir=str(workdir)), make_dataset())
    assert state_of(tmp_path) == before


@pytest.mark.fault(
    "run folder", "FIFO or folder in the place of config.json", "reading it is refused"
)
@pytest.mark.parametrize("kind", ["FIFO", "folder"])
def test_load_refuses_special_config(kind, tmp_path):
    SPECIAL[kind](tmp_path / "config.json", tmp_path)
    with pytest.raises(ValueError, match="json is not a file"):
        load(tmp_path)
    with pytest.raises(ValueError, match="json is not a file"):
        dataset_name(TrainConfig(workdir=str(tmp_path)))


def test_load_doesnt_wait_for_fifo(reference, tmp_path):
    run, _ = reference
    shutil.copytree(run.workdir, tmp_path / "run")
    (tmp_path / "run" / "evaluation.json").unlink()
    for name in ("evaluation.json", "model.safetensors"):
        os.mkfifo(tmp_path / "run" / name)
    assert load(tmp_path / "run").metrics == {}


def test_load_run_rejects_missing_or_invalid_config(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a run: it has no config"):
        load_run(tmp_path)
    (tmp_path / "config.json").write_text('{"config": {"objectiv')
    with pytest.raises(ValueError, match="json is invalid"):
        load_run(tmp_path)
    (tmp_path / "config.json").write_text('{"format": 2, "config": {"beta": "x"}}')
    with pytest.raises(ValueError, match="json is invalid"):
        load_run(tmp_path)


@pytest.mark.parametrize("found", [None, 1, 3, "2"])
@pytest.mark.fault(
    "run folder", "a run of another format", "refused, naming the formats, and nothing is changed"
)
def test_rejects_other_format(found, reference, tmp_path):
    """Format 1 had no field "format"; the folder isn't changed."""
    run, _ = reference
    contents = json.loads((run.workdir / "config.json").read_text())
    del contents["format"]
    if found is not None:
        contents["format"] = found
    path = tmp_path / "config.json"
    path.write_text(json.dumps(contents))
    message = (
        f"{path} has format {found or 1}, but this version of jvae_jax reads format 2; train "
        "again, or use the version of jvae_jax that wrote it"
    )
    for open_folder in (load_run, load, train_in):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            open_folder(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def train_in(workdir):
    fit(replace(SMALL, workdir=str(workdir)), make_dataset())


def test_auto_resumes_with_dataset_of_the_run(reference, tmp_path):
    run, _ = reference
    assert dataset_name(TrainConfig(workdir=str(run.workdir))) == "toy"
    assert dataset_name(TrainConfig(workdir=str(run.workdir), dataset="mnist")) == "mnist"
    assert dataset_name(TrainConfig(workdir=str(tmp_path))) == "auto"
    assert dataset_name(TrainConfig()) == "auto"


def test_reports_run_without_checkpoint(reference, tmp_path):
    run, _ = reference
    shutil.copy(run.workdir / "config.json", tmp_path)
    for checkpoint in ("latest", "best"):
        with pytest.raises(checkpoints.CheckpointError, match="no checkpoint"):
            load_run(tmp_path).load_state(checkpoint)


@pytest.mark.fault(
    "checkpoints",
    "evaluate --checkpoint=best with a damaged checkpoint",
    "a warning names it; the best of the others is evaluated",
)
def test_best_of_undamaged_checkpoints(reference, tmp_path):
    run, _ = reference
    shutil.copytree(run.workdir, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    steps = sorted(int(path.name) for path in folder.iterdir())
    metrics = {
        step: json.loads((folder / str(step) / "metrics" / "metrics").read_text())["negative_elbo"]
        for step in steps
    }
    damaged, best = sorted(metrics, key=metrics.__getitem__)[:2]
    (folder / str(damaged) / "metrics" / "metrics").write_text("[]")
    with log_messages() as messages:
        state = load_run(tmp_path / "run").load_state("best")
    assert int(state.step) == best
    (message,) = messages
    assert message.startswith(f"the checkpoint of step {damaged} in {tmp_path / 'run'} is damaged")
    assert message.endswith("this is the best of the others")


def test_rejects_unknown_checkpoint(reference):
    run, _ = reference
    for load_checkpoint in (run.load_state, run.load_model):
        with pytest.raises(ValueError, match="checkpoint must be latest or best, got 'first'"):
            load_checkpoint("first")


def test_load_dataset_has_size_of_the_run(tmp_path):
    dataset = data.load("mnist_5k", image_size=8)
    run = plan_run(TrainConfig(workdir=str(tmp_path)).resolve(dataset), dataset)
    run.check_data(run.load_dataset())
    run.check_data(run.load_dataset(str(tmp_path)))

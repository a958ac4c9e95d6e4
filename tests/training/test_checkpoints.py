"""Retention of checkpoints, damage to each of their files, links in them, and failed writes."""

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import file_size_limit

from jvae_jax.training.checkpoints import (
    CheckpointError,
    CheckpointWriter,
    metric_sums,
    restore_best,
    restore_latest,
    set_aside,
)


class State(NamedTuple):
    step: jax.Array
    weights: dict


def state_at(step):
    return State(jnp.int32(step), {"w": jnp.arange(1000.0) + step})


def save_all(folder, negative_elbos):
    writer = CheckpointWriter(folder)
    for step, negative_elbo in negative_elbos.items():
        writer.save(step, state_at(step), negative_elbo=negative_elbo, metric_sums={})
    writer.close()


class StateWithMore(NamedTuple):
    step: jax.Array
    more: jax.Array | None
    weights: dict


def test_restores_states_without_a_later_field(tmp_path):
    """The checksum covers the same arrays in the same order."""
    save_all(tmp_path, {1: 0.0})
    like = StateWithMore(jnp.int32(0), None, {"w": jnp.zeros(1000)})
    restored, damaged = restore_latest(tmp_path, like)
    assert restored is not None
    assert not damaged
    assert restored.more is None
    np.testing.assert_array_equal(restored.weights["w"], state_at(1).weights["w"])
    needed = like._replace(more=jnp.float32(0))
    with pytest.raises(CheckpointError):
        restore_latest(tmp_path, needed)


def steps_in(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def test_keeps_latest_two_and_best(tmp_path):
    save_all(tmp_path, {1: 5.0, 2: 1.0, 3: 4.0, 4: 3.0, 5: 2.0})
    assert steps_in(tmp_path) == [2, 4, 5]
    latest, damaged = restore_latest(tmp_path, state_at(0))
    assert latest is not None
    assert int(latest.step) == 5
    assert not damaged
    jax.tree.map(np.testing.assert_array_equal, latest, state_at(5))
    best, damaged = restore_best(tmp_path, state_at(0))
    assert best is not None
    assert not damaged
    jax.tree.map(np.testing.assert_array_equal, best, state_at(2))


def test_latest_of_equally_good_checkpoints_is_the_best(tmp_path):
    """Those of interrupted epochs have no negative ELBO yet, so theirs is infinite."""
    save_all(tmp_path, {1: np.inf, 2: np.inf, 3: np.inf, 4: np.inf})
    assert steps_in(tmp_path) == [3, 4]
    best, _ = restore_best(tmp_path, state_at(0))
    assert best is not None
    assert int(best.step) == 4


def test_saved_state_is_a_copy(tmp_path):
    """Later steps may reuse the memory while a checkpoint is written."""
    weights = np.zeros(1000, np.float32)
    writer = CheckpointWriter(tmp_path)
    writer.save(1, State(jnp.int32(1), {"w": weights}), negative_elbo=0.0, metric_sums={})
    weights += 1
    writer.close()
    restored, _ = restore_latest(tmp_path, state_at(0))
    assert restored is not None
    np.testing.assert_array_equal(restored.weights["w"], np.zeros(1000))


def test_metric_sums_are_kept_with_their_step(tmp_path):
    writer = CheckpointWriter(tmp_path)
    writer.save(3, state_at(3), negative_elbo=1.0, metric_sums={"loss": 2.5, "kl_z": 0.125})
    writer.save(4, state_at(4), negative_elbo=1.0, metric_sums={})
    writer.close()
    assert metric_sums(tmp_path, 3) == {"loss": 2.5, "kl_z": 0.125}
    assert metric_sums(tmp_path, 4) == {}


def test_unfinished_checkpoints_of_a_killed_process_are_removed(tmp_path):
    folder = tmp_path / "new" / "checkpoints"
    save_all(folder, {1: 1.0})
    (folder / "2.orbax-checkpoint-tmp").mkdir()
    restored, damaged = restore_latest(folder, state_at(0))
    assert restored is not None
    assert not damaged
    save_all(folder, {3: 1.0})
    assert sorted(path.name for path in folder.iterdir()) == ["1", "3"]


def test_infinite_negative_elbo_is_never_the_best(tmp_path):
    """That of a checkpoint within an epoch."""
    save_all(tmp_path, {1: math.inf, 2: 3.0, 3: math.inf, 4: math.inf, 5: math.inf})
    assert steps_in(tmp_path) == [2, 4, 5]
    best, _ = restore_best(tmp_path, state_at(0))
    assert best is not None
    assert int(best.step) == 2


def test_damaged_step_is_moved_beside_the_checkpoints(tmp_path):
    """A second time under another name."""
    for _ in range(2):
        save_all(tmp_path / "checkpoints", {1: 3.0})
        aside = set_aside(tmp_path / "checkpoints", [1])
    assert aside == tmp_path / "damaged_checkpoints"
    assert steps_in(tmp_path / "checkpoints") == []
    assert [path.name.split("-")[0] for path in aside.iterdir()] == ["1", "1"]
    assert all((path / "state").is_dir() for path in aside.iterdir())


def test_empty_folder_has_no_checkpoint(tmp_path):
    assert restore_latest(tmp_path, state_at(0)) == (None, {})
    assert restore_latest(tmp_path / "new", state_at(0)) == (None, {})
    assert restore_best(tmp_path, state_at(0)) == (None, {})


def damage_file(path, kind):
    content = path.read_bytes()
    if kind == "removed":
        path.unlink()
    elif kind == "emptied":
        path.write_bytes(b"")
    else:
        path.write_bytes(content[: len(content) // 2])


@pytest.mark.fault(
    "checkpoints",
    "removed, emptied or truncated file",
    "reported; the previous checkpoint is used and the damaged one moved",
)
# Orbax reads files concurrently; when one fails, the errors of the others are never retrieved.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["removed", "emptied", "truncated"])
def test_damaged_checkpoint_falls_back_to_previous_one(tmp_path, kind):
    """Damages each file in turn: if it is needed, the previous step is restored."""
    save_all(tmp_path / "intact", {1: 3.0, 2: 2.0})
    names = [
        path.relative_to(tmp_path / "intact")
        for path in (tmp_path / "intact" / "2").rglob("*")
        if path.is_file()
    ]
    fallbacks = 0
    for index, name in enumerate(names):
        folder = tmp_path / str(index)
        shutil.copytree(tmp_path / "intact", folder)
        damage_file(folder / name, kind)
        restored, damaged = restore_latest(folder, state_at(0))
        assert restored is not None
        step = int(restored.step)
        jax.tree.map(np.testing.assert_array_equal, restored, state_at(step))
        if damaged:
            assert step == 1
            assert list(damaged) == [2]
            aside = set_aside(folder, damaged)
            assert [path.name.split("-")[0] for path in aside.iterdir()] == ["2"]
            aside.rename(tmp_path / f"aside-{index}")
            fallbacks += 1
            save_all(folder, {2: 1.0})
        again, damaged = restore_latest(folder, state_at(0))
        assert again is not None
        assert int(again.step) == 2
        assert not damaged
    assert fallbacks >= 3


@pytest.mark.fault("checkpoints", "all damaged", "one sentence; nothing is removed")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_keeps_files_if_all_checkpoints_are_damaged(tmp_path):
    save_all(tmp_path, {1: 3.0, 2: 2.0})
    for step in (1, 2):
        for path in (tmp_path / str(step) / "state").rglob("*"):
            if path.is_file():
                path.write_bytes(b"")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(CheckpointError, match="can be read, and nothing was removed: step 2"):
        restore_latest(tmp_path, state_at(0))
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def sha256_of(tree):
    """Checksum of the arrays only, as checkpoints had it before it covered their metrics."""
    digest = hashlib.sha256()
    for leaf in map(np.asarray, jax.tree.leaves(tree)):
        digest.update(f"{leaf.dtype}{leaf.shape}".encode() + leaf.tobytes())
    return digest.hexdigest()


def metrics_path(folder, step):
    return folder / str(step) / "metrics" / "metrics"


def edit_metrics(folder, step, **changes):
    path = metrics_path(folder, step)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("has_checksum", [True, False])
def test_reads_earlier_checkpoints(tmp_path, has_checksum):
    save_all(tmp_path, {1: 3.0, 2: 2.0})
    digest = {"sha256": sha256_of(state_at(2))} if has_checksum else {}
    contents = {"negative_elbo": 2.0, "sums": {"loss": 1.5}, **digest}
    metrics_path(tmp_path, 2).write_text(json.dumps(contents))
    for restore in (restore_latest, restore_best):
        restored, damaged = restore(tmp_path, state_at(0))
        assert not damaged
        jax.tree.map(np.testing.assert_array_equal, restored, state_at(2))
    assert metric_sums(tmp_path, 2) == {"loss": 1.5}


def flip_bit(leaf, bit):
    content = bytearray(leaf.tobytes())
    content[bit // 8] ^= 1 << bit % 8
    return np.frombuffer(bytes(content), leaf.dtype).reshape(leaf.shape)


TREE = {
    "a": np.arange(4, dtype=np.float32) / 3,
    "b": np.arange(4, dtype=np.float32) + 1,
    "step": np.array(5),
}
CHANGED_TREES = {
    "lowest bit": {**TREE, "a": flip_bit(TREE["a"], 64)},
    "sign of zero": {**TREE, "a": flip_bit(TREE["a"], 31)},
    "scalar": {**TREE, "step": flip_bit(TREE["step"], 7)},
    "dtype": {**TREE, "a": TREE["a"].astype(np.float16)},
    "integers": {**TREE, "a": TREE["a"].astype(np.int32)},
    "shape": {**TREE, "a": TREE["a"].reshape(2, 2)},
    "length": {**TREE, "a": TREE["a"][:3]},
    "swapped": {**TREE, "a": TREE["b"], "b": TREE["a"]},
    "missing": {"a": TREE["a"], "b": TREE["b"]},
}


def save_tree(folder, tree, step=1):
    writer = CheckpointWriter(folder)
    writer.save(step, tree, negative_elbo=2.0, metric_sums={"loss": 1.5, "kl_z": 0.5})
    writer.close()


@pytest.mark.fault(
    "checkpoints",
    "flipped bit, other dtype or shape, swapped or missing arrays",
    "detected by the checksum; the previous checkpoint is used",
)
@pytest.mark.filterwarnings("ignore")  # Orbax's threads
@pytest.mark.parametrize("change", CHANGED_TREES)
def test_changed_arrays_are_detected(change, tmp_path):
    """The state of another checkpoint, which Orbax itself reads, takes the place of the saved."""
    save_tree(tmp_path / "run", TREE)
    save_tree(tmp_path / "run", TREE, step=2)
    save_tree(tmp_path / "other", CHANGED_TREES[change])
    shutil.rmtree(tmp_path / "run" / "2" / "state")
    (tmp_path / "other" / "1" / "state").rename(tmp_path / "run" / "2" / "state")
    restored, damaged = restore_latest(tmp_path / "run", TREE)
    jax.tree.map(np.testing.assert_array_equal, restored, TREE)
    assert list(damaged) == [2]


@pytest.mark.fault(
    "checkpoints",
    "changed negative ELBO or metric sums, or a step under another number",
    "detected by the checksum; the previous checkpoint is used",
)
@pytest.mark.parametrize(
    "changes",
    [
        {"negative_elbo": 2.0000000000000004},
        {"negative_elbo": 20.0},
        {"sums": {"loss": 1.5, "kl_z": 0.25}},
        {"sums": {"loss": 0.5, "kl_z": 1.5}},
        {"sums": {"loss": 1.5}},
        {"sums": {}},
        {"sha256": "0"},
        {"surplus": 1},
        None,
    ],
)
def test_changed_metrics_are_detected(changes, tmp_path):
    save_tree(tmp_path, TREE)
    save_tree(tmp_path, TREE, step=2)
    if changes is None:
        (tmp_path / "2").rename(tmp_path / "3")
    else:
        edit_metrics(tmp_path, 2, **changes)
    restored, damaged = restore_latest(tmp_path, TREE)
    assert restored is not None
    assert list(damaged.values()) == ["the checksum of its arrays and metrics doesn't match"]
    restored, damaged = restore_best(tmp_path, TREE)
    assert restored is not None
    assert len(damaged) == 1


@pytest.mark.fault(
    "checkpoints",
    "metrics that aren't a dictionary of numbers",
    "the best of the other checkpoints is used; the damaged one is named and kept",
)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"null",
        b"[1]",
        b'"low"',
        b"{}",
        b"[" * 100_000,
        b'{"negative_elbo": NaN}',
        b'{"negative_elbo": "low"}',
        b'{"negative_elbo": null}',
        b'{"negative_elbo": true}',
        b'{"negative_elbo": 0, "sums": 3}',
        b'{"negative_elbo": 0, "sums": {"loss": "high"}}',
        b'{"negative_elbo": 0, "sums": {"loss": [1]}}',
    ],
    ids=range(15),
)
def test_damaged_metrics(content, tmp_path):
    save_all(tmp_path, {1: 1.0, 2: 2.0, 3: 3.0})
    metrics_path(tmp_path, 1).write_bytes(content)
    best, damaged = restore_best(tmp_path, state_at(0))
    assert best is not None
    assert int(best.step) == 2
    assert list(damaged) == [1]
    assert str(metrics_path(tmp_path, 1)) in damaged[1]
    save_all(tmp_path, {4: 4.0, 5: 5.0})
    assert steps_in(tmp_path) == [1, 2, 4, 5]
    assert metrics_path(tmp_path, 1).read_bytes() == content
    latest, damaged = restore_latest(tmp_path, state_at(0))
    assert latest is not None
    assert int(latest.step) == 5
    assert not damaged


@pytest.mark.fault(
    "checkpoints",
    "files and folders that Orbax didn't write",
    "left alone; a step that contains nothing is reported as damaged",
)
def test_foreign_names(tmp_path):
    save_all(tmp_path, {1: 1.0, 2: 2.0})
    for name in ("007", "-3", "2 (copy)", "1.5", "\u0663"):
        shutil.copytree(tmp_path / "1", tmp_path / name)
    (tmp_path / "notes.txt").write_text("mine")
    before = {path.name for path in tmp_path.iterdir()}
    latest, damaged = restore_latest(tmp_path, state_at(0))
    assert latest is not None
    assert int(latest.step) == 2
    assert not damaged
    huge = 99999999999999999999
    (tmp_path / str(huge)).mkdir()
    (tmp_path / "8").write_text("a file")
    latest, damaged = restore_latest(tmp_path, state_at(0))
    assert latest is not None
    assert int(latest.step) == 2
    assert list(damaged) == [huge, 8]
    set_aside(tmp_path, damaged)
    save_all(tmp_path, {3: 0.0})
    assert {path.name for path in tmp_path.iterdir()} == before - {"1"} | {"3"}


LINKS = {
    "step": ("2", "outside"),
    "state": ("2/state", "outside/state"),
    "metrics": ("2/metrics", "outside/metrics"),
    "metrics file": ("2/metrics/metrics", "outside/metrics/metrics"),
    "surplus link": ("2/state/more", "outside"),
    "dangling link": ("2/state/more", "nothing"),
    "loop": ("2/state/more", "run/2"),
}


def contents_of(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.fault(
    "checkpoints",
    "symbolic link in a checkpoint or in its place",
    "not followed: reported as damaged, and nothing elsewhere is changed or removed",
)
@pytest.mark.parametrize("is_latest", [True, False])
@pytest.mark.parametrize("kind", LINKS)
def test_links_are_not_followed(kind, is_latest, tmp_path):
    """What is outside is an intact checkpoint of the same step."""
    run, outside = tmp_path / "run", tmp_path / "outside"
    save_all(run, {1: 5.0, 2: 2.0} if is_latest else {1: 5.0, 2: 2.0, 3: 4.0})
    shutil.copytree(run / "2", outside)
    before = contents_of(outside)
    link, target = tmp_path / "run" / LINKS[kind][0], tmp_path / LINKS[kind][1]
    if link.is_dir():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.symlink_to(target)
    best, damaged = restore_best(run, state_at(0))
    assert best is not None
    assert int(best.step) == (1 if is_latest else 3)
    assert damaged == {2: f"{link} is a symbolic link"}
    _, damaged = restore_latest(run, state_at(0))
    assert list(damaged) == ([2] if is_latest else [])
    if is_latest:
        set_aside(run, damaged)
        assert steps_in(run) == [1]
    save_all(run, {4: 1.0, 5: 0.5, 6: 0.0})
    assert steps_in(run) == ([5, 6] if is_latest else [2, 5, 6])
    assert contents_of(outside) == before


@pytest.mark.fault(
    "checkpoints", "FIFO in a checkpoint", "reported as damaged, without waiting for it"
)
@pytest.mark.parametrize("name", ["metrics/metrics", "state/manifest.ocdbt", "state/more"])
def test_fifo_in_checkpoint(name, tmp_path):
    save_all(tmp_path, {1: 1.0, 2: 2.0})
    path = tmp_path / "2" / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    latest, damaged = restore_latest(tmp_path, state_at(0))
    assert latest is not None
    assert int(latest.step) == 1
    assert damaged == {2: f"{path} is neither a file nor a folder"}


def test_removes_what_a_killed_process_left(tmp_path):
    """Also of Orbax's CheckpointManager; links in it aren't followed."""
    run, outside = tmp_path / "run", tmp_path / "outside"
    save_all(run, {1: 1.0})
    outside.mkdir()
    (outside / "file").write_text("mine")
    for name in ("2.orbax-checkpoint-tmp", "3.orbax-checkpoint-tmp-1700000000"):
        shutil.copytree(run / "1", run / name)
        (run / name / "link").symlink_to(outside)
    assert restore_latest(run, state_at(0))[1] == {}
    save_all(run, {2: 2.0})
    assert sorted(path.name for path in run.iterdir()) == ["1", "2"]
    assert (outside / "file").read_text() == "mine"


@pytest.mark.fault(
    "checkpoints",
    "full disk while a checkpoint is written",
    "one sentence with the reason, before the next dispatch; the previous checkpoint is intact",
)
@pytest.mark.filterwarnings("ignore")  # Orbax's threads
def test_full_disk(tmp_path):
    noise = {"w": np.random.default_rng(0).normal(size=100_000)}
    save_tree(tmp_path, noise)
    writer = CheckpointWriter(tmp_path)
    with file_size_limit(100_000):
        writer.save(2, noise, negative_elbo=0.0, metric_sums={})
        started = time.monotonic()
        with pytest.raises(CheckpointError) as info:
            while time.monotonic() < started + 10:
                writer.check()
    writer.close()
    message = str(info.value)
    assert message.startswith(f"a checkpoint can't be written to {tmp_path} (")
    assert "File too large); the latest intact one is of step 1. Once" in message
    assert "\n" not in message
    assert steps_in(tmp_path) == [1]
    save_tree(tmp_path, noise, step=2)
    restored, damaged = restore_latest(tmp_path, noise)
    assert not damaged
    jax.tree.map(np.testing.assert_array_equal, restored, noise)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


FAILED_SAVE = """
import dataclasses, resource, sys
from pathlib import Path
import jax
from jvae_jax import cli
from jvae_jax.training.checkpoints import CheckpointWriter
folder, fault = Path(sys.argv[1]), sys.argv[2]

@dataclasses.dataclass
class Flags:
    pass

def save_twice(flags):
    noise = {"w": jax.random.normal(jax.random.key(0), (1_000_000,))}
    writer = CheckpointWriter(folder)
    writer.save(1, noise, negative_elbo=0.0, metric_sums={})
    writer.close()
    writer = CheckpointWriter(folder)
    if fault == "full disk":
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    else:
        (folder / "2.orbax-checkpoint-tmp").write_text("no folder can be created here")
    writer.save(2, noise, negative_elbo=0.0, metric_sums={})
    writer.close()

cli.run(save_twice, Flags, description="", args=[])
"""


@pytest.mark.long
@pytest.mark.fault(
    "processes",
    "failed save of a checkpoint",
    "one line, and the process ends within seconds",
)
@pytest.mark.parametrize("fault", ["full disk", "folder that can't be created"])
def test_process_ends_after_failed_write(tmp_path, fault):
    program = [sys.executable, "-c", FAILED_SAVE, str(tmp_path), fault]
    process = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)
    assert process.returncode == 1
    assert process.stderr.startswith(f"error: a checkpoint can't be written to {tmp_path} (")
    assert process.stderr.count("\n") == 1
    assert "the latest intact one is of step 1" in process.stderr
    assert steps_in(tmp_path) == [1]
    noise = {"w": jax.random.normal(jax.random.key(0), (1_000_000,))}
    restored, damaged = restore_latest(tmp_path, noise)
    assert restored is not None
    assert not damaged
    np.testing.assert_array_equal(restored["w"], noise["w"])

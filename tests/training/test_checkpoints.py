"""Retention of checkpoints, and damage to each of their files."""

import hashlib
import json
import math
import shutil
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
    assert int(restore_best(tmp_path, state_at(0)).step) == 2


def test_metric_sums_are_kept_with_their_step(tmp_path):
    writer = CheckpointWriter(tmp_path)
    writer.save(3, state_at(3), negative_elbo=1.0, metric_sums={"loss": 2.5, "kl_z": 0.125})
    writer.save(4, state_at(4), negative_elbo=1.0, metric_sums={})
    writer.close()
    assert metric_sums(tmp_path, 3) == {"loss": 2.5, "kl_z": 0.125}
    assert metric_sums(tmp_path, 4) == {}


def test_infinite_negative_elbo_is_never_the_best(tmp_path):
    """That of a checkpoint within an epoch."""
    save_all(tmp_path, {1: math.inf, 2: 3.0, 3: math.inf, 4: math.inf, 5: math.inf})
    assert steps_in(tmp_path) == [2, 4, 5]
    assert int(restore_best(tmp_path, state_at(0)).step) == 2


def checksum_of(step):
    """SHA-256 of the dtype, shape and bytes of each array, as earlier versions wrote it."""
    digest = hashlib.sha256(b"int32()" + np.int32(step).tobytes())
    digest.update(b"float32(1000,)" + (np.arange(1000, dtype=np.float32) + step).tobytes())
    return digest.hexdigest()


def test_checksum_is_of_all_arrays(tmp_path):
    save_all(tmp_path, {7: 1.0})
    path = tmp_path / "7" / "metrics" / "metrics"
    assert json.loads(path.read_text())["sha256"] == checksum_of(7)


@pytest.mark.fault(
    "checkpoints",
    "arrays that were changed without an error of Orbax",
    "recognised by their checksum, and the previous checkpoint is used",
)
def test_arrays_that_differ_from_their_checksum_are_damaged(tmp_path):
    save_all(tmp_path, {1: 3.0, 2: 2.0})
    shutil.rmtree(tmp_path / "2" / "state")
    shutil.copytree(tmp_path / "1" / "state", tmp_path / "2" / "state")
    restored, damaged = restore_latest(tmp_path, state_at(0))
    assert restored is not None
    assert int(restored.step) == 1
    assert damaged == {2: "the checksum of its arrays doesn't match"}
    with pytest.raises(CheckpointError, match="checksum of its arrays doesn't match"):
        restore_best(tmp_path, state_at(0))


def test_checkpoint_without_checksum_can_be_read(tmp_path):
    """Those of earlier versions have none."""
    save_all(tmp_path, {1: 3.0})
    path = tmp_path / "1" / "metrics" / "metrics"
    path.write_text('{"negative_elbo": 3.0}')
    restored, damaged = restore_latest(tmp_path, state_at(0))
    assert not damaged
    jax.tree.map(np.testing.assert_array_equal, restored, state_at(1))
    assert metric_sums(tmp_path, 1) == {}


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
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        restore_best(tmp_path, state_at(0))


def damage_file(path, kind):
    content = path.read_bytes()
    if kind == "removed":
        path.unlink()
    elif kind == "emptied":
        path.write_bytes(b"")
    else:
        path.write_bytes(content[: len(content) // 2])


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


DISK_FULL = """
import resource, sys
from pathlib import Path
import jax, jax.numpy as jnp
from jvae_jax.training.checkpoints import CheckpointError, CheckpointWriter, restore_latest
folder = Path(sys.argv[1])
noise = {"w": jax.random.normal(jax.random.key(0), (1_000_000,))}
writer = CheckpointWriter(folder)
writer.save(1, noise, negative_elbo=0.0, metric_sums={})
writer.close()
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
writer = CheckpointWriter(folder)
try:
    writer.save(2, noise, negative_elbo=0.0, metric_sums={})
    writer.close()
except CheckpointError as error:
    print(error)
state, damaged = restore_latest(folder, noise)
assert not damaged, damaged
assert (state["w"] == noise["w"]).all()
"""


@pytest.mark.long
def test_failed_write_keeps_previous_checkpoint(tmp_path):
    """Simulates a full disk: the file size limit is below the size of a checkpoint."""
    program = [sys.executable, "-c", DISK_FULL, str(tmp_path)]
    process = subprocess.run(program, capture_output=True, text=True, check=False, timeout=120)
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith(f"a checkpoint can't be written to {tmp_path} (")
    assert "the latest intact one is of step 1" in process.stdout
    assert steps_in(tmp_path) == [1]

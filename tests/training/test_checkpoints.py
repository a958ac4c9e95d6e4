"""What is kept, and what happens to each file that can be damaged."""

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
    restore_best,
    restore_latest,
    set_aside,
)


class State(NamedTuple):
    step: jax.Array
    weights: dict


def state_at(step):
    return State(jnp.int32(step), {"w": jnp.arange(1000.0) + step})


def saved(folder, bounds):
    writer = CheckpointWriter(folder)
    for step, bound in bounds.items():
        writer.save(step, state_at(step), negative_elbo=bound, sums={})
    writer.close()


def steps_in(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def test_the_latest_two_and_the_best_are_kept(tmp_path):
    saved(tmp_path, {1: 5.0, 2: 1.0, 3: 4.0, 4: 3.0, 5: 2.0})
    assert steps_in(tmp_path) == [2, 4, 5]
    latest, damaged = restore_latest(tmp_path, state_at(0))
    assert latest is not None
    assert int(latest.step) == 5
    assert not damaged
    jax.tree.map(np.testing.assert_array_equal, latest, state_at(5))
    assert int(restore_best(tmp_path, state_at(0)).step) == 2


def test_an_empty_folder_has_none(tmp_path):
    assert restore_latest(tmp_path, state_at(0)) == (None, {})
    assert restore_latest(tmp_path / "new", state_at(0)) == (None, {})
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        restore_best(tmp_path, state_at(0))


def damage(path, how):
    content = path.read_bytes()
    if how == "removed":
        path.unlink()
    elif how == "emptied":
        path.write_bytes(b"")
    else:
        path.write_bytes(content[: len(content) // 2])


# Orbax reads files side by side, and when one fails nobody asks for the others' errors.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("how", ["removed", "emptied", "truncated"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, how):
    """Each file in turn: either it isn't needed, or the step before is taken, never a wrong one."""
    saved(tmp_path / "whole", {1: 3.0, 2: 2.0})
    names = [
        path.relative_to(tmp_path / "whole")
        for path in (tmp_path / "whole" / "2").rglob("*")
        if path.is_file()
    ]
    fell_back = 0
    for index, name in enumerate(names):
        folder = tmp_path / str(index)
        shutil.copytree(tmp_path / "whole", folder)
        damage(folder / name, how)
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
            fell_back += 1
            saved(folder, {2: 1.0})
        again, damaged = restore_latest(folder, state_at(0))
        assert again is not None
        assert int(again.step) == 2
        assert not damaged
    assert fell_back >= 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_with_none_left_nothing_is_removed(tmp_path):
    saved(tmp_path, {1: 3.0, 2: 2.0})
    for step in (1, 2):
        for path in (tmp_path / str(step) / "state").rglob("*"):
            if path.is_file():
                path.write_bytes(b"")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(CheckpointError, match="can be read, and nothing was removed: step 2"):
        restore_latest(tmp_path, state_at(0))
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


FULL = """
import resource, sys
from pathlib import Path
import jax, jax.numpy as jnp
from jvae_jax.training.checkpoints import CheckpointError, CheckpointWriter, restore_latest
folder = Path(sys.argv[1])
noise = {"w": jax.random.normal(jax.random.key(0), (1_000_000,))}
writer = CheckpointWriter(folder)
writer.save(1, noise, negative_elbo=0.0, sums={})
writer.close()
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
writer = CheckpointWriter(folder)
try:
    writer.save(2, noise, negative_elbo=0.0, sums={})
    writer.close()
except CheckpointError as error:
    print(error)
state, damaged = restore_latest(folder, noise)
assert not damaged, damaged
assert (state["w"] == noise["w"]).all()
"""


@pytest.mark.long
def test_what_cannot_be_written_leaves_the_last_good_one(tmp_path):
    """As on a full disk: no file may become as large as a checkpoint."""
    program = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"a checkpoint can't be written into {tmp_path} (")
    assert "the last good one is of step 1" in done.stdout
    assert steps_in(tmp_path) == [1]

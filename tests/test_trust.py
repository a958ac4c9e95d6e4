"""Nothing that a stranger made runs code: no file is unpickled."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import make_dataset

import jvae_jax
from jvae_jax import TrainConfig, data
from jvae_jax.training.checkpoints import CheckpointWriter
from jvae_jax.training.run import start_run

READING = """
import sys
from jvae_jax import data
from jvae_jax.training.run import load_run, start_run
watched = []
sys.addaudithook(lambda event, _: watched.append(event) if event == "pickle.find_class" else None)
folder = sys.argv[1]
state = load_run(folder).load_state()
assert int(state.step) == 0
data.load(folder + "/digits.npz", folder)
assert not watched, watched
import pickle, fractions
pickle.loads(pickle.dumps(fractions.Fraction(1)))
assert watched
"""


@pytest.mark.long
def test_no_pickle_is_read(tmp_path):
    """Not of a run, its checkpoints or data; the hook that watches would see one."""
    dataset = make_dataset()
    run = start_run(TrainConfig(workdir=str(tmp_path)).resolve(dataset), dataset)
    writer = CheckpointWriter(run.checkpoints_path)
    writer.save(0, run.initial_state(), negative_elbo=0.0, sums={})
    writer.close()
    splits = ("train_images", "train_labels", "test_images", "test_labels")
    np.savez(tmp_path / "digits.npz", **{name: getattr(dataset, name) for name in splits})
    program = [sys.executable, "-c", READING, str(tmp_path)]
    subprocess.run(program, check=True, capture_output=True, text=True)


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_among_arrays_is_refused(tmp_path):
    harm, path = tmp_path / "harm", tmp_path / "evil.npz"
    images = np.zeros((4, 8, 8), np.uint8)
    np.savez(path, images=images, labels=np.array([Evil(harm)] * 4, object))
    pickle.loads(pickle.dumps(Evil(harm)))
    assert harm.exists()
    harm.unlink()
    with pytest.raises(ValueError, match="evil"):
        data.load(str(path), str(tmp_path))
    assert not harm.exists()


def test_nothing_asks_for_pickles():
    for path in Path(jvae_jax.__file__).parent.rglob("*.py"):
        text = path.read_text()
        assert "import pickle" not in text
        assert "allow_pickle=True" not in text
        assert text.count("np.load(") <= text.count("allow_pickle=False")

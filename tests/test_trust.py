"""Untrusted files can't run code: no file is unpickled."""

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
from jvae_jax.training.run import open_run

READ_FILES = """
import sys
from jvae_jax import data
from jvae_jax.training.run import load_run
events = []
sys.addaudithook(lambda event, _: events.append(event) if event == "pickle.find_class" else None)
folder = sys.argv[1]
state = load_run(folder).load_state()
assert int(state.step) == 0
data.load(folder + "/digits.npz", folder)
assert not events, events
import pickle, fractions
pickle.loads(pickle.dumps(fractions.Fraction(1)))
assert events
"""


@pytest.mark.long
def test_reading_runs_and_data_unpickles_nothing(tmp_path):
    """An audit hook records unpickling; at the end, it is shown to work."""
    dataset = make_dataset()
    run = open_run(TrainConfig(workdir=str(tmp_path)).resolve(dataset), dataset)
    writer = CheckpointWriter(run.checkpoints_path)
    writer.save(0, run.initial_state(), negative_elbo=0.0, metric_sums={})
    writer.close()
    splits = ("train_images", "train_labels", "test_images", "test_labels")
    np.savez(tmp_path / "digits.npz", **{name: getattr(dataset, name) for name in splits})
    program = [sys.executable, "-c", READ_FILES, str(tmp_path)]
    subprocess.run(program, check=True, capture_output=True, text=True)


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_rejects_pickles_in_npz(tmp_path):
    created, path = tmp_path / "created", tmp_path / "malicious.npz"
    images = np.zeros((4, 8, 8), np.uint8)
    np.savez(path, images=images, labels=np.array([Malicious(created)] * 4, object))
    pickle.loads(pickle.dumps(Malicious(created)))
    assert created.exists()
    created.unlink()
    with pytest.raises(ValueError, match="malicious"):
        data.load(str(path), str(tmp_path))
    assert not created.exists()


def test_source_never_allows_pickles():
    for path in Path(jvae_jax.__file__).parent.rglob("*.py"):
        text = path.read_text()
        assert "import pickle" not in text
        assert "allow_pickle=True" not in text
        assert text.count("np.load(") <= text.count("allow_pickle=False")

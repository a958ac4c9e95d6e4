"""A run's folder: whose it is, what is in it, and what it refuses."""

import shutil
from dataclasses import replace

import pytest
from helpers import SMALL, make_dataset

from jvae_jax.training import checkpoints, loop
from jvae_jax.training.config import TrainConfig
from jvae_jax.training.loop import fit
from jvae_jax.training.run import dataset_name, load_run


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beta": 3.0, "seed": 1}, "seed is 0 there and 1 here; beta is 30.0 there and 3.0 here"),
        ({"epochs": 5}, "epochs is 4 there and 5 here"),
        ({"objective": "joint_vae"}, "objective is 'ours' there and 'joint_vae' here"),
    ],
)
def test_mixing_configurations_is_refused(reference, changes, message):
    run, _ = reference
    with pytest.raises(ValueError, match=message):
        fit(replace(SMALL, workdir=str(run.workdir), **changes), make_dataset())


def test_other_data_are_refused(reference):
    run, _ = reference
    with pytest.raises(ValueError, match="fingerprint is"):
        fit(replace(SMALL, workdir=str(run.workdir)), make_dataset(seed=1))
    with pytest.raises(ValueError, match="was trained on other data: fingerprint is"):
        loop.evaluate_run(run, make_dataset(seed=1), run.load_state())


def test_colour_where_grey_was_trained_is_refused(reference):
    run, _ = reference
    message = r"image_shape is \(8, 8, 1\) there and \(8, 8, 3\) here"
    with pytest.raises(ValueError, match=message):
        fit(replace(SMALL, workdir=str(run.workdir)), make_dataset(channels=3))
    with pytest.raises(ValueError, match=message):
        loop.evaluate_run(run, make_dataset(channels=3), run.load_state())


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("ten years")
    with pytest.raises(ValueError, match="holds something that isn't a run"):
        fit(replace(SMALL, workdir=str(tmp_path)), make_dataset())
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match="holds something that isn't a run"):
        fit(replace(SMALL, workdir=str(file)), make_dataset())
    assert (tmp_path / "thesis.tex").read_text() == "ten years"


def test_an_unwritable_folder_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file/run"):
        fit(replace(SMALL, workdir=str(tmp_path / "file" / "run")), make_dataset())


def test_not_a_run_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no run: it has no config"):
        load_run(tmp_path)
    (tmp_path / "config.json").write_text('{"config": {"objectiv')
    with pytest.raises(ValueError, match="json can't be understood"):
        load_run(tmp_path)
    (tmp_path / "config.json").write_text('{"config": {"beta": "x"}}')
    with pytest.raises(ValueError, match="json can't be understood"):
        load_run(tmp_path)


def test_auto_goes_on_with_the_runs_own_data(reference, tmp_path):
    run, _ = reference
    assert dataset_name(TrainConfig(workdir=str(run.workdir))) == "toy"
    assert dataset_name(TrainConfig(workdir=str(run.workdir), dataset="mnist")) == "mnist"
    assert dataset_name(TrainConfig(workdir=str(tmp_path))) == "auto"
    assert dataset_name(TrainConfig()) == "auto"


def test_a_run_without_checkpoint_is_told(reference, tmp_path):
    run, _ = reference
    shutil.copy(run.workdir / "config.json", tmp_path)
    for checkpoint in ("latest", "best"):
        with pytest.raises(checkpoints.CheckpointError, match="no checkpoint"):
            load_run(tmp_path).load_state(checkpoint)

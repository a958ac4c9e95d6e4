"""Files of a run while it trains, and on a full disk."""

import io
import json
import shutil
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest
from helpers import SMALL, file_size_limit, make_dataset
from PIL import Image

from jvae_jax import plotting
from jvae_jax.objectives import VAE
from jvae_jax.trained_model import TrainedModel
from jvae_jax.training import distributed, loop
from jvae_jax.training.checkpoints import CheckpointError
from jvae_jax.training.loop import fit
from jvae_jax.training.run import open_run, plan_run
from jvae_jax.training.run_writer import RunWriter
from jvae_jax.training.step import TrainState


def state_at(step):
    return TrainState(np.int32(step), {"w": np.ones(2)}, {"w": np.zeros(2)}, ())


def make_run(folder, open_folder=open_run, **changes):
    dataset = make_dataset()
    config = replace(SMALL, workdir=str(folder / "run"), **changes)
    return open_folder(config.resolve(dataset), dataset)


@pytest.mark.parametrize(("step", "kept"), [(0, 0), (6, 1), (12, 2), (14, 2)])
def test_drops_metrics_of_later_epochs(tmp_path, step, kept):
    """Those of epochs that a resumed run trains again, and a partial line."""
    run = make_run(tmp_path)
    lines = [f'{{"epoch": {epoch}}}\n' for epoch in (1, 2, 3)]
    run.metrics_path.write_text("".join(lines) + '{"epo')
    if step == 14:
        with RunWriter(run, 12) as writer:
            writer.save_checkpoint(state_at(14), negative_elbo=1.0, metric_sums={"loss": 3.0})
    with RunWriter(run, step) as writer:
        assert writer.metric_sums == ({"loss": 3.0} if step == 14 else {})
        assert run.metrics_path.read_text() == "".join(lines[:kept])
        writer.write_epoch(kept + 1, 6 * kept + 6, {"loss": 2.0}, {"kl_z": 1.0})
    (*_, last) = run.metrics_path.read_text().splitlines()
    assert json.loads(last) == {
        "epoch": kept + 1,
        "step": 6 * kept + 6,
        "train": {"loss": 2.0},
        "test": {"kl_z": 1.0},
    }


def test_progress_is_written_to_stderr(tmp_path, capsys):
    with RunWriter(make_run(tmp_path), 6) as writer:
        writer.write_epoch(2, 12, {"loss": 2.0}, {"kl_z": 1.0})
    output = capsys.readouterr()
    assert output.err.startswith("epoch 2/4 | train loss 2 | test kl_z 1 | ")
    assert output.out == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_bar_starts_at_the_first_step_and_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with RunWriter(make_run(tmp_path), 6) as writer:
        writer.progress.steps(12, {"loss": 2.0})
    assert "epoch 3/4:  50%" in sys.stderr.getvalue()
    assert "96.0/192" in sys.stderr.getvalue()
    assert sys.stderr.getvalue().endswith("\n")


@pytest.mark.parametrize("has_classes", [True, False])
def test_samples_are_ten_styles_of_each_class(tmp_path, monkeypatch, has_classes):
    """Ten rows without classes. The styles are the same whenever the samples are rewritten."""
    calls = []

    def sample(model, *, key, rows, columns):
        rows = 3 if has_classes else rows
        calls.append((model.variables, jax.random.key_data(key).tolist(), rows, columns))
        return np.zeros((rows, columns, 8, 8, 1))

    grid = plotting.image_grid
    names = []
    monkeypatch.setattr(TrainedModel, "sample", sample)
    monkeypatch.setattr(
        plotting, "image_grid", lambda images, rows: names.append(rows) or grid(images, rows)
    )
    run = make_run(tmp_path, **({} if has_classes else {"objective": VAE()}), seed=3)
    paths = []
    with RunWriter(run, 0, paths.append) as writer:
        writer.write_samples(0, {"average": 1})
    key = jax.random.fold_in(jax.random.key(3), 3)
    rows = 3 if has_classes else 10
    assert calls == [({"average": 1}, jax.random.key_data(key).tolist(), rows, 10)]
    assert names == [("a", "b", "c") if has_classes else None]
    assert paths == [run.workdir / "samples.png"]
    with Image.open(paths[0]) as image:
        assert image.format == "PNG"


def test_other_processes_write_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(distributed, "is_first", lambda: False)
    run = make_run(tmp_path, plan_run)
    with RunWriter(run, 6, pytest.fail) as writer:
        writer.write_epoch(2, 12, {"loss": 2.0}, {"kl_z": 1.0})
        writer.save_checkpoint(state_at(12), negative_elbo=1.0, metric_sums={})
        writer.write_samples(12, {})
        writer.write_curves()
    assert writer.metric_sums == {}
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


FILES = ("metrics.jsonl", "evaluation.json", "samples.png")


def contents_of(run):
    return {name: (run.workdir / name).read_bytes() for name in FILES}


@pytest.mark.fault(
    "run folder",
    "full disk at the write of any file",
    "one sentence that names the file; the same command resumes once there is room",
)
@pytest.mark.parametrize(
    ("limit", "error", "message"),
    [
        (200, OSError, r"File too large: .*/run/config.json"),
        (400, OSError, r"File too large: .*/run/metrics.jsonl"),
        (5_000, OSError, r"File too large: .*/run/samples.png"),
        (50_000, CheckpointError, r"can't be written to .*/run/checkpoints .*File too large\)"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # Orbax's threads
def test_run_resumes_after_full_disk(limit, error, message, reference, tmp_path, capsys):
    """The limit in bytes is below the size of the file that can't be written."""
    del capsys  # Otherwise output is captured in a file, to which the limit applies.
    run, _ = reference
    config = replace(SMALL, workdir=str(tmp_path / "run"), save_every=4)
    if limit == 400:
        open_run(config.resolve(make_dataset()), make_dataset())
    with file_size_limit(limit), pytest.raises(error, match=message) as info:
        fit(config, make_dataset())
    assert "\n" not in str(info.value)
    files = [path for path in (tmp_path / "run").iterdir() if path.is_file()]
    assert [path.name for path in files if path.name.startswith(".")] == [".lock"]
    if limit == 400:
        first, partial = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
        assert json.loads(first)["epoch"] == 1
        with pytest.raises(json.JSONDecodeError):
            json.loads(partial)
    assert contents_of(fit(config, make_dataset())) == contents_of(run)


@pytest.mark.fault(
    "run folder",
    "full disk when metrics of the test split are written",
    "one sentence that names the file, which stays as it was",
)
def test_evaluation_is_kept_on_full_disk(reference, tmp_path, capsys):
    del capsys
    run, _ = reference
    shutil.copytree(run.workdir, tmp_path / "run")
    copy = replace(run, workdir=tmp_path / "run")
    message = r"File too large: .*/run/evaluation.json"
    with file_size_limit(500), pytest.raises(OSError, match=message):
        loop.evaluate_run(copy, make_dataset(), run.model.variables, step=24)
    assert contents_of(copy) == contents_of(run)

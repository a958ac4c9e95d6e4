"""Whole runs of a small model: what is written, going on, and refusing."""

import gzip
import json
import os
import shutil
import signal
from dataclasses import replace

import jax
import numpy as np
import pytest
from helpers import SMALL, make_dataset
from PIL import Image

from jvae_jax.objectives import OBJECTIVES
from jvae_jax.training import checkpoints, loop, run_writer
from jvae_jax.training.config import TrainConfig
from jvae_jax.training.loop import DivergedError, fit
from jvae_jax.training.run import load_run


class InterruptedTestError(Exception):
    pass


def metrics_of(run):
    return [json.loads(line) for line in run.metrics_path.read_text().splitlines()]


def assert_same_end(run, reference):
    jax.tree.map(np.testing.assert_array_equal, run.load_state(), reference.load_state())
    for name in ("metrics.jsonl", "evaluation.json", "samples.png"):
        assert (run.workdir / name).read_bytes() == (reference.workdir / name).read_bytes()


def interrupted_in_epoch(epoch, workdir, monkeypatch, **changes):
    """Starts a run whose process stops as if killed, somewhere in an epoch."""
    real = loop.mean_test_terms
    calls = []

    def stopping(*args):
        calls.append(args)
        if len(calls) == epoch:
            raise InterruptedTestError
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "mean_test_terms", stopping)
        with pytest.raises(InterruptedTestError):
            fit(replace(SMALL, workdir=str(workdir), **changes), make_dataset())


def test_a_run_leaves_what_it_should(reference):
    run, said = reference
    contents = json.loads((run.workdir / "config.json").read_text())
    assert contents["config"]["dataset"] == "toy"
    assert contents["config"]["capacity_steps"] == 6  # 4 x 48 / 8 = 24 steps x 25,000 / 93,750
    assert contents["data"]["fingerprint"] == make_dataset().fingerprint
    assert contents["environment"]["jax"] == jax.__version__
    lines = metrics_of(run)
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 6), (2, 12), (3, 18), (4, 24)]
    for line in lines:
        names = ["loss", "reconstruction", "kl_z", "kl_c", "gradient_norm"]
        assert list(line["train"]) == names
        assert list(line["test"]) == ["reconstruction", "kl_z", "kl_c"]
    evaluation = json.loads((run.workdir / "evaluation.json").read_text())
    assert evaluation["step"] == 24
    assert evaluation["examples"] == 20
    with Image.open(run.workdir / "samples.png") as samples:
        assert samples.width > 100
    assert {path.name for path in (run.workdir / "checkpoints").iterdir()} >= {"18", "24"}
    assert any("capacities rise from 0 over 6 steps" in sentence for sentence in said)


def test_mean_of_an_epoch_is_of_its_steps(reference):
    """The loss is its terms weighed, so their epoch means must add up while C is constant."""
    run, _ = reference
    last = metrics_of(run)[-1]["train"]
    assert last["loss"] >= last["reconstruction"] + 30 * abs(last["kl_z"] - 5.0) - 1e-3


def test_the_same_command_again_says_it_is_finished(reference):
    run, _ = reference
    before = {path: path.stat().st_mtime_ns for path in run.workdir.rglob("*")}
    said = []
    fit(replace(SMALL, workdir=str(run.workdir)), make_dataset(), say=said.append)
    assert "is finished: all 24 steps" in said[-1]
    assert {path: path.stat().st_mtime_ns for path in run.workdir.rglob("*")} == before


@pytest.mark.parametrize("epoch", [1, 3])
def test_going_on_is_as_never_stopped(reference, epoch, tmp_path, monkeypatch):
    run, _ = reference
    interrupted_in_epoch(epoch, tmp_path / "run", monkeypatch)
    # As a kill in the middle of a write leaves it.
    with (tmp_path / "run" / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"epoch": 9, "tra')
    said = []
    again = fit(replace(SMALL, workdir=str(tmp_path / "run")), make_dataset(), say=said.append)
    assert any(f"going on from step {6 * (epoch - 1)} of 24" in s for s in said) == (epoch > 1)
    assert_same_end(again, run)


def test_stopped_as_the_last_is_saved(reference, tmp_path, monkeypatch):
    real = run_writer.RunWriter.save

    def stopping(self, state, **about):
        real(self, state, **about)
        if int(state.step) == 24:
            raise InterruptedTestError

    config = replace(SMALL, workdir=str(tmp_path / "run"))
    with monkeypatch.context() as patch:
        patch.setattr(run_writer.RunWriter, "save", stopping)
        with pytest.raises(InterruptedTestError):
            fit(config, make_dataset())
    assert_same_end(fit(config, make_dataset()), reference[0])


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "left_by", "dispatch"),
    [(signal.SIGINT, KeyboardInterrupt, 2), (signal.SIGTERM, SystemExit, 3)],
)
def test_asked_to_stop_it_saves_and_goes_on_as_never_stopped(
    number, left_by, dispatch, tmp_path, monkeypatch
):
    """Two steps to a dispatch, three dispatches to an epoch: within the second, and at its end."""
    monkeypatch.setattr("jvae_jax.training.loop._STEPS_PER_DISPATCH", 2)
    config = replace(SMALL, epochs=3)
    never = fit(replace(config, workdir=str(tmp_path / "never")), make_dataset())
    real, seen = run_writer.ProgressReport.steps, []

    def asking(report, step, terms):
        seen.append(step)
        if len(seen) == 3 + dispatch:
            os.kill(os.getpid(), number)
        real(report, step, terms)

    stopped = replace(config, workdir=str(tmp_path / "stopped"))
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        patch.setattr(run_writer.ProgressReport, "steps", asking)
        with pytest.raises(left_by) as info:
            fit(stopped, make_dataset())
    assert getattr(info.value, "code", 0) == 0
    assert handlers == [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    assert seen[-1] == 6 + 2 * dispatch
    assert int(load_run(tmp_path / "stopped").load_state().step) == seen[-1]
    assert_same_end(fit(stopped, make_dataset()), never)


def test_an_unevaluated_end_is_evaluated(reference, tmp_path):
    run, _ = reference
    shutil.copytree(run.workdir, tmp_path / "run")
    (tmp_path / "run" / "evaluation.json").unlink()
    again = fit(replace(SMALL, workdir=str(tmp_path / "run")), make_dataset())
    assert_same_end(again, run)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_checkpoint_falls_back(reference, tmp_path):
    run, _ = reference
    shutil.copytree(run.workdir, tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints" / "24" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    said = []
    again = fit(replace(SMALL, workdir=str(tmp_path / "run")), make_dataset(), say=said.append)
    assert "the checkpoint of step 24 is damaged" in said[0]
    assert "going on from step 18 of 24" in said[2]
    assert len(list((tmp_path / "run" / "damaged_checkpoints").iterdir())) == 1
    assert_same_end(again, run)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_with_no_checkpoint_left_it_stops(reference, tmp_path):
    run, _ = reference
    shutil.copytree(run.workdir, tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    before = sorted(path.name for path in (tmp_path / "run").rglob("*"))
    with pytest.raises(checkpoints.CheckpointError, match="nothing was removed"):
        fit(replace(SMALL, workdir=str(tmp_path / "run")), make_dataset())
    assert sorted(path.name for path in (tmp_path / "run").rglob("*")) == before


def test_bad_batches_are_told_before_a_folder_is_made(tmp_path):
    config = replace(SMALL, workdir=str(tmp_path / "run"))
    with pytest.raises(ValueError, match="48 training examples don't fill one batch of 64"):
        fit(replace(config, batch_size=64), make_dataset())
    with pytest.raises(ValueError, match="can't be shared equally by 2 devices"):
        fit(replace(config, batch_size=7), make_dataset())
    assert not (tmp_path / "run").exists()


def test_diverging_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    interrupted_in_epoch(3, workdir, monkeypatch)
    real = loop.parallel.place

    def poisoned(placed, devices):
        """Broken weights in the decoder, as a step too far would leave them."""
        order, state = real(placed, devices)
        state.variables["params"]["decoder"]["bias"] *= np.nan
        return order, state

    monkeypatch.setattr(loop.parallel, "place", poisoned)
    with pytest.raises(DivergedError, match=r"not finite at step 12: loss, reconstruction") as info:
        fit(replace(SMALL, workdir=str(workdir)), make_dataset())
    assert str(workdir / "checkpoints") in str(info.value)
    state, damaged = checkpoints.restore_latest(
        workdir / "checkpoints", load_run(workdir).state_shape()
    )
    assert state is not None
    assert int(state.step) == 12
    assert not damaged
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.variables))


def test_the_cap_of_c_is_said_aloud(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_train", lambda *args: args[3])
    monkeypatch.setattr(loop, "evaluate_run", lambda *_: None)
    some = make_dataset()
    some.train_labels[0] = -1
    cap = "C_c rises only to log 3 = 1.099 nats, all that 3 classes can hold, not to the 5 asked"
    for objective, dataset, capped in (
        ("joint_vae", make_dataset(), True),
        ("ours", make_dataset(), False),
        ("ours", some, True),
        ("annealed_vae", make_dataset(), False),
    ):
        said = []
        workdir = tmp_path / f"{objective}-{capped}"
        config = replace(SMALL, objective=objective, workdir=str(workdir))
        fit(config, dataset, say=said.append)
        assert any(cap in sentence for sentence in said) == capped


@pytest.mark.long
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_all_six_train(objective, tmp_path):
    """Some of the data unlabelled, in colour, and not square."""
    dataset = make_dataset(size=16, channels=3)
    dataset.train_labels[::2] = -1
    config = TrainConfig(
        objective=objective, epochs=12, batch_size=8, workdir=str(tmp_path / "run"), latents=2
    )
    run = fit(config, dataset)
    lines = metrics_of(run)
    assert lines[-1]["test"]["reconstruction"] < 0.9 * lines[0]["test"]["reconstruction"]
    evaluation = json.loads((run.workdir / "evaluation.json").read_text())
    assert ("category_to_class" in evaluation) == (objective == "joint_vae")


@pytest.mark.long
def test_a_profile_is_a_trace_and_changes_nothing(tmp_path, reference):
    run = fit(replace(SMALL, workdir=str(tmp_path / "run"), profile=True), make_dataset())
    assert_same_end(run, reference[0])
    (perfetto,) = (run.workdir / "profile").glob("**/perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(perfetto.read_bytes()))["traceEvents"]
    assert any("dot" in event.get("name", "") for event in events)
    (xplane,) = (run.workdir / "profile").glob("**/*.xplane.pb")
    assert xplane.stat().st_size > 0

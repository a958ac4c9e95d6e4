"""Runs of a small model: files, resumption, signals, divergence."""

import gzip
import json
import os
import shutil
import signal
from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from helpers import SMALL, assert_same_result, log_messages, make_dataset
from PIL import Image

from jvae_jax.data.neighbours import mutual_neighbours, nearest_images
from jvae_jax.objectives import OBJECTIVES, AnnealedVAE, JointVAE, Ours
from jvae_jax.training import checkpoints, loop, run_writer
from jvae_jax.training.config import TrainConfig
from jvae_jax.training.distributed import stop_on_signals
from jvae_jax.training.loop import DivergedError, fit
from jvae_jax.training.run import load_run, plan_run
from jvae_jax.training.step import TrainState


class InterruptedTestError(Exception):
    pass


def metrics_of(run):
    return [json.loads(line) for line in run.metrics_path.read_text().splitlines()]


def interrupt_in_epoch(epoch, workdir, monkeypatch, **changes):
    """Starts a run and interrupts it within an epoch, before its checkpoint is saved."""
    original = loop.mean_test_terms
    calls = []

    def interrupting(*args):
        calls.append(args)
        if len(calls) == epoch:
            raise InterruptedTestError
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "mean_test_terms", interrupting)
        with pytest.raises(InterruptedTestError):
            fit(replace(SMALL, workdir=str(workdir), **changes), make_dataset())


def test_run_writes_config_metrics_checkpoints_and_samples(reference):
    run, messages = reference
    contents = json.loads((run.workdir / "config.json").read_text())
    assert contents["format"] == 2
    assert contents["config"]["dataset"] == "toy"
    # 4 x 48 / 8 = 24 steps x 25,000 / 93,750
    assert contents["config"]["objective"]["capacity_steps"] == 6
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
    assert "capacities increase from 0 over 6 steps" in messages


def test_epoch_means_of_terms_add_up_to_loss(reference):
    """While C is constant, the loss is a weighted sum of its terms, and so are the epoch means."""
    run, _ = reference
    last = metrics_of(run)[-1]["train"]
    assert last["loss"] >= last["reconstruction"] + 30 * abs(last["kl_z"] - 5.0) - 1e-3


def test_finished_run_is_left_unchanged(reference):
    run, _ = reference
    before = {path: path.stat().st_mtime_ns for path in run.workdir.rglob("*")}
    with log_messages() as messages:
        fit(replace(SMALL, workdir=str(run.workdir)), make_dataset())
    assert "is finished: all 24 steps" in messages[-1]
    assert {path: path.stat().st_mtime_ns for path in run.workdir.rglob("*")} == before


@pytest.mark.parametrize("epoch", [1, 3])
def test_resumed_run_equals_uninterrupted_run(reference, epoch, tmp_path, monkeypatch):
    run, _ = reference
    interrupt_in_epoch(epoch, tmp_path / "run", monkeypatch)
    # A process that is killed while it writes leaves a partial line.
    with (tmp_path / "run" / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"epoch": 9, "tra')
    config, sample_paths = replace(SMALL, workdir=str(tmp_path / "run")), []
    with log_messages() as messages:
        resumed = fit(config, make_dataset(), on_samples=sample_paths.append)
    resumption = f"resuming from step {6 * (epoch - 1)} of 24"
    assert any(resumption in message for message in messages) == (epoch > 1)
    assert sample_paths == [tmp_path / "run" / "samples.png"] * (4 - (epoch - 1))
    assert_same_result(resumed, run)


@pytest.mark.parametrize("has_neighbours", [False, True])
def test_c_is_matched_to_labels_and_those_of_neighbours(monkeypatch, has_neighbours):
    """c is 1, 2, 3, 0 for the classes 0 to 3, but for the labelled images of two, whose neighbours
    are right. Without them, these two are exchanged."""
    order = np.array([1, 2, 3, 0])
    dataset = make_dataset(classes=4, train=40)
    classes = dataset.train_labels.copy()
    labelled = np.array([np.flatnonzero(classes == label)[0] for label in range(4)])
    labels = np.full_like(classes, -1)
    labels[labelled] = np.arange(4)
    categories = order[classes]
    categories[labelled[[2, 3]]] = order[[3, 2]]
    images = np.zeros_like(dataset.train_images)
    images[:, 0, 0, 0] = categories
    run = plan_run(SMALL.resolve(dataset), dataset)
    monkeypatch.setattr(loop, "_MATCHED_AT_A_TIME", 3)
    monkeypatch.setattr(
        loop,
        "encode",
        lambda _network, _variables, images: SimpleNamespace(logits=np.eye(4)[images[:, 0, 0, 0]]),
    )
    permutations = []

    def permute(_network, _optimizer, state, categories):
        permutations.append(categories)
        return state

    monkeypatch.setattr(loop, "permute_categories", permute)
    neighbours = np.array([np.flatnonzero(classes == label)[1:4] for label in classes])
    loop._matched_to_labels(
        run,
        replace(dataset, train_images=images, train_labels=labels),
        neighbours if has_neighbours else None,
        run.initial_state(),
    )
    # The value of c that becomes each class.
    expected = order if has_neighbours else order[[0, 1, 3, 2]]
    np.testing.assert_array_equal(permutations, [expected])


FEW_LABELS = replace(
    SMALL,
    objective=Ours(consistency_weight=30.0, neighbours=3, unsupervised_epochs=-1),
    num_labels=3,
)


@pytest.mark.long
@pytest.mark.parametrize("epoch", [2, 3, 4])
def test_resumes_exactly_before_and_after_c_is_matched(epoch, tmp_path, monkeypatch):
    """From the end of epoch 1, without labels, of epoch 2, where c is matched, and of epoch 3."""
    with log_messages() as messages:
        whole = fit(replace(FEW_LABELS, workdir=str(tmp_path / "whole")), make_dataset())
    assert "labels are used from epoch 3 on" in messages
    changes = {"objective": FEW_LABELS.objective, "num_labels": 3}
    interrupt_in_epoch(epoch, tmp_path / "resumed", monkeypatch, **changes)
    with log_messages() as messages:
        resumed = fit(replace(FEW_LABELS, workdir=str(tmp_path / "resumed")), make_dataset())
    assert any("matched c to the labels" in message for message in messages) == (epoch < 4)
    assert_same_result(resumed, whole)


@pytest.mark.long
def test_run_with_more_epochs_continues_the_finished_one(tmp_path):
    """Its capacity schedule stays, where the default of the longer run would take 6 steps."""
    short = replace(FEW_LABELS, epochs=2, workdir=str(tmp_path / "grown"))
    fit(short, make_dataset())
    with log_messages() as messages:
        grown = fit(replace(short, epochs=4), make_dataset())
    assert any("grows from 2 to 4 epochs" in message for message in messages)
    for name, kept, default in (("capacity_steps", 3, 6), ("unsupervised_epochs", 1, 2)):
        assert (
            f"{name} is {kept}, as when the run was started, where 4 epochs would have {default}; "
            "for that, choose another --workdir"
        ) in messages
    objective = replace(FEW_LABELS.objective, capacity_steps=3, unsupervised_epochs=1)
    whole = replace(FEW_LABELS, objective=objective, workdir=str(tmp_path / "whole"))
    expected = fit(whole, make_dataset())
    assert_same_result(grown, expected)
    assert_same_result(fit(replace(short, epochs=4), make_dataset()), expected)
    with pytest.raises(ValueError, match="epochs is 4 there and 2 here"):
        fit(short, make_dataset())


@pytest.mark.long
def test_resumes_with_the_neighbours_that_the_folder_keeps(tmp_path, monkeypatch):
    """Within an epoch, where another search would order equal distances differently."""
    objective = Ours(consistency_weight=3.0, neighbours=3, marginal_weight=1.0)
    config = replace(SMALL, objective=objective, num_labels=6, workdir=str(tmp_path / "whole"))
    whole = fit(config, make_dataset())
    interrupt_in_epoch(3, tmp_path / "resumed", monkeypatch, objective=objective, num_labels=6)
    kept = np.load(tmp_path / "resumed" / "neighbours.npy")
    assert kept.shape == (len(make_dataset().train_labels), 3)
    reverse = lambda nearest: mutual_neighbours(nearest)[:, ::-1]  # noqa: E731
    monkeypatch.setattr(loop, "mutual_neighbours", reverse)
    resumed = fit(replace(config, workdir=str(tmp_path / "resumed")), make_dataset())
    assert_same_result(resumed, whole)
    # Found again if the file is damaged, for the epochs that follow.
    (tmp_path / "resumed" / "neighbours.npy").write_bytes(b"damaged")
    fit(replace(config, epochs=5, workdir=str(tmp_path / "resumed")), make_dataset())
    found = np.load(tmp_path / "resumed" / "neighbours.npy")
    np.testing.assert_array_equal(found, kept[:, ::-1])


@pytest.mark.parametrize("content", [b"", b"damaged", None])
def test_neighbours_are_found_again_if_their_file_is_damaged(content, tmp_path):
    dataset = make_dataset()
    objective = Ours(consistency_weight=3.0, neighbours=3)
    config = replace(SMALL, objective=objective, num_labels=6, workdir=str(tmp_path))
    run = plan_run(config.resolve(dataset), dataset)
    path = tmp_path / "neighbours.npy"
    if content is None:
        np.save(path, np.zeros((2, 3), np.int32))  # of other data
    else:
        path.write_bytes(content)
    expected = mutual_neighbours(nearest_images(dataset.train_images, 3))
    found = loop._neighbours_of_images(run, dataset.with_labels(6, 0))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.load(path), expected)


def test_another_objective_takes_no_capacity_steps_over(reference):
    """The CVAE has none without a capacity."""
    run, _ = reference
    config = replace(SMALL, objective=OBJECTIVES["cvae"](), workdir=str(run.workdir))
    refused = pytest.raises(ValueError, match="objective is 'ours' there and 'cvae' here")
    with log_messages() as messages, refused:
        fit(config, make_dataset())
    assert messages == []


@pytest.mark.long
def test_resumes_multipliers_exactly(tmp_path, monkeypatch):
    objective = Ours(penalty="multiplier", conditional_encoder=True)
    config = replace(SMALL, objective=objective, workdir=str(tmp_path / "whole"))
    whole = fit(config, make_dataset())
    multipliers = whole.load_state().multipliers
    assert multipliers["multiplier_c"] == 30.0
    assert multipliers["multiplier_z"] not in (0.0, 30.0, -30.0)
    interrupt_in_epoch(3, tmp_path / "resumed", monkeypatch, objective=objective)
    resumed = fit(replace(config, workdir=str(tmp_path / "resumed")), make_dataset())
    assert resumed.load_state().multipliers == multipliers
    assert_same_result(resumed, whole)


def test_resumes_after_interruption_at_last_checkpoint(reference, tmp_path, monkeypatch):
    original = run_writer.RunWriter.save_checkpoint

    def interrupting(self, state, **metrics):
        original(self, state, **metrics)
        if int(state.step) == 24:
            raise InterruptedTestError

    config = replace(SMALL, workdir=str(tmp_path / "run"))
    with monkeypatch.context() as patch:
        patch.setattr(run_writer.RunWriter, "save_checkpoint", interrupting)
        with pytest.raises(InterruptedTestError):
            fit(config, make_dataset())
    assert_same_result(fit(config, make_dataset()), reference[0])


@pytest.mark.fault(
    "flags", "settings that have no effect with the data's labels", "a warning names them"
)
def test_warns_of_settings_without_effect(reference, tmp_path, monkeypatch):
    """The warnings precede training."""

    def train(*_args):
        raise InterruptedTestError

    monkeypatch.setattr(loop, "_train", train)
    objective = Ours(unlabelled_capacity_c=3.0, unsupervised_epochs=1)
    source = str(reference[0].workdir)
    config = replace(
        SMALL,
        epochs=2,
        objective=objective,
        labelled_batch_fraction=0.5,
        fixed_latents=2,
        pseudo_labels_from=source,
    )
    expected = {
        "all": {
            "labelled_batch_fraction of 0.5",
            f"pseudo_labels_from of {source}",
            "unlabelled_capacity_c of 3",
            "unsupervised_epochs of 1",
        },
        30: {"labelled_batch_fraction of 0.5"},
        6: set(),
    }
    for num_labels, settings in expected.items():
        workdir = str(tmp_path / str(num_labels))
        with log_messages() as messages, pytest.raises(InterruptedTestError):
            fit(replace(config, num_labels=num_labels, workdir=workdir), make_dataset())
        end = " has no effect with these labels"
        assert {m.removesuffix(end) for m in messages if m.endswith(end)} == settings
        assert "all 2 latents are fixed at 0, so z holds nothing" in messages


@pytest.mark.fault("output", "signal while stderr is closed", "the request to stop is taken")
def test_signal_with_closed_stderr():
    reader, writer = os.pipe()
    os.close(reader)
    stderr = os.dup(2)
    os.dup2(writer, 2)
    os.close(writer)
    try:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.synchronize()
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


@pytest.mark.long
@pytest.mark.parametrize(
    ("signal_number", "exception", "dispatch"),
    [(signal.SIGINT, KeyboardInterrupt, 2), (signal.SIGTERM, SystemExit, 3)],
)
def test_signal_saves_checkpoint_and_resumed_run_equals_uninterrupted_run(
    signal_number, exception, dispatch, tmp_path, monkeypatch
):
    """Signals within the second epoch and at its end: an epoch is 3 dispatches of 2 steps."""
    monkeypatch.setattr("jvae_jax.training.feeding.STEPS_PER_DISPATCH", 2)
    config = replace(SMALL, epochs=3)
    uninterrupted = fit(replace(config, workdir=str(tmp_path / "uninterrupted")), make_dataset())
    original, steps = run_writer.ProgressReport.steps, []

    def signalling(report, step, terms):
        steps.append(step)
        if len(steps) == 3 + dispatch:
            os.kill(os.getpid(), signal_number)
        original(report, step, terms)

    stopped = replace(config, workdir=str(tmp_path / "stopped"))
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        patch.setattr(run_writer.ProgressReport, "steps", signalling)
        with pytest.raises(exception) as info:
            fit(stopped, make_dataset())
    assert getattr(info.value, "code", 0) == 0
    assert handlers == [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    assert steps[-1] == 6 + 2 * dispatch
    assert int(load_run(tmp_path / "stopped").load_state().step) == steps[-1]
    assert_same_result(fit(stopped, make_dataset()), uninterrupted)


def test_evaluates_finished_run_without_evaluation(reference, tmp_path):
    run, _ = reference
    shutil.copytree(run.workdir, tmp_path / "run")
    (tmp_path / "run" / "evaluation.json").unlink()
    evaluated = fit(replace(SMALL, workdir=str(tmp_path / "run")), make_dataset())
    assert_same_result(evaluated, run)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_damaged_checkpoint_falls_back_to_previous_one(reference, tmp_path):
    run, _ = reference
    shutil.copytree(run.workdir, tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints" / "24" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with log_messages() as messages:
        resumed = fit(replace(SMALL, workdir=str(tmp_path / "run")), make_dataset())
    assert "the checkpoint of step 24 is damaged" in messages[0]
    assert "resuming from step 18 of 24" in messages[2]
    assert len(list((tmp_path / "run" / "damaged_checkpoints").iterdir())) == 1
    assert_same_result(resumed, run)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_fails_if_all_checkpoints_are_damaged(reference, tmp_path):
    run, _ = reference
    shutil.copytree(run.workdir, tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    before = sorted(path.name for path in (tmp_path / "run").rglob("*"))
    with pytest.raises(checkpoints.CheckpointError, match="nothing was removed"):
        fit(replace(SMALL, workdir=str(tmp_path / "run")), make_dataset())
    assert sorted(path.name for path in (tmp_path / "run").rglob("*")) == before


def test_rejects_invalid_batch_size_before_creating_folder(tmp_path):
    config = replace(SMALL, workdir=str(tmp_path / "run"))
    with pytest.raises(ValueError, match="at most the 48 training examples, got 64"):
        fit(replace(config, batch_size=64), make_dataset())
    with pytest.raises(ValueError, match="divisible by the 2 devices, got 7"):
        fit(replace(config, batch_size=7), make_dataset())
    assert not (tmp_path / "run").exists()


def test_divergence_keeps_last_finite_checkpoint(tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    interrupt_in_epoch(3, workdir, monkeypatch)
    original = loop.parallel.place

    def placing_nan(tree, devices):
        """Sets the decoder's bias to NaN, as a diverged step would."""
        placed = original(tree, devices)
        if isinstance(placed, TrainState):
            placed.variables["params"]["decoder"]["bias"] *= np.nan
        return placed

    monkeypatch.setattr(loop.parallel, "place", placing_nan)
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


@pytest.mark.fault(
    "processes",
    "term that isn't finite on the test split",
    "training ends with its name and the epoch; the last finite checkpoint is kept",
)
@pytest.mark.parametrize(
    ("name", "value"), [("reconstruction", np.nan), ("kl_z", np.inf), ("kl_c", -np.inf)]
)
def test_nonfinite_test_terms_end_training(name, value, tmp_path, monkeypatch):
    original = loop.mean_test_terms
    calls = []

    def diverging(*args):
        calls.append(args)
        terms = original(*args)
        return {**terms, name: value} if len(calls) == 3 else terms

    monkeypatch.setattr(loop, "mean_test_terms", diverging)
    message = f"^not finite on the test split after epoch 3: {name}. .*run/checkpoints has"
    with pytest.raises(DivergedError, match=message):
        fit(replace(SMALL, workdir=str(tmp_path / "run")), make_dataset())
    run = load_run(tmp_path / "run")
    assert int(run.load_state().step) == 12
    assert [line["epoch"] for line in metrics_of(run)] == [1, 2]


@pytest.mark.long
@pytest.mark.fault(
    "flags",
    "batch_size of 1, with which batch normalisation can't train",
    "training ends with the terms that aren't finite",
)
def test_batch_of_one_diverges(tmp_path):
    """A dense layer's variance over one image is 0, and so the running variance falls to 0."""
    dataset = make_dataset(train=4000)
    config = TrainConfig(epochs=1, batch_size=1, latents=2, workdir=str(tmp_path / "run"))
    with pytest.raises(DivergedError, match="not finite on the test split after epoch 1: "):
        fit(config, dataset, devices=jax.devices()[:1])
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_warns_that_capacity_c_is_capped(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_train", lambda _run, _dataset, state, *_: state)
    monkeypatch.setattr(loop, "evaluate_run", lambda *_, **__: None)
    partly_labelled = make_dataset()
    partly_labelled.train_labels[0] = -1
    warning = (
        "C_c is capped at log 3 = 1.099 nats, the most that 3 classes can hold, below the "
        "configured 5"
    )
    for objective, dataset, is_capped in (
        (JointVAE(), make_dataset(), True),
        (Ours(), make_dataset(), False),
        (Ours(), partly_labelled, True),
        (AnnealedVAE(), make_dataset(), False),
    ):
        workdir = tmp_path / f"{objective.name}-{is_capped}"
        config = replace(SMALL, objective=objective, workdir=str(workdir))
        with log_messages() as messages:
            fit(config, dataset)
        assert (warning in messages) == is_capped


@pytest.mark.long
@pytest.mark.parametrize("name", OBJECTIVES)
def test_each_objective_lowers_reconstruction_loss(name, tmp_path):
    """Coloured images, half of them unlabelled."""
    dataset = make_dataset(size=16, channels=3)
    dataset.train_labels[::2] = -1
    config = TrainConfig(
        objective=OBJECTIVES[name](),
        epochs=12,
        batch_size=8,
        workdir=str(tmp_path / "run"),
        latents=2,
    )
    run = fit(config, dataset)
    lines = metrics_of(run)
    assert lines[-1]["test"]["reconstruction"] < 0.9 * lines[0]["test"]["reconstruction"]
    evaluation = json.loads((run.workdir / "evaluation.json").read_text())
    assert ("category_to_class" in evaluation) == (name == "joint_vae")


@pytest.mark.long
def test_profile_writes_trace_without_changing_result(tmp_path, reference):
    run = fit(replace(SMALL, workdir=str(tmp_path / "run"), profile=True), make_dataset())
    assert_same_result(run, reference[0])
    (perfetto,) = (run.workdir / "profile").glob("**/perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(perfetto.read_bytes()))["traceEvents"]
    assert any("dot" in event.get("name", "") for event in events)
    (xplane,) = (run.workdir / "profile").glob("**/*.xplane.pb")
    assert xplane.stat().st_size > 0

"""What an epoch trains on, and what a run saves, with training steps that only record."""

import json
import math
import os
import signal
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import SMALL, log_messages, make_dataset

from jvae_jax.data.labels import keep_labels
from jvae_jax.objectives import VAE, JointVAE, Ours
from jvae_jax.training import checkpoints, distributed, feeding, loop, parallel, run_writer
from jvae_jax.training.checkpoints import CheckpointWriter
from jvae_jax.training.loop import DivergedError, fit
from jvae_jax.training.run import Run
from jvae_jax.training.step import StepMetrics
from jvae_jax.types import LabelInfo

NAMES = ("loss", "reconstruction", "kl_z", "kl_c", "gradient_norm")
FIXED_KEYS = {"train": 1, "test": 2, "order": 4}
"""Purposes by their number, which must not change: runs are resumed by later versions."""


def purpose_key(purpose, seed=0):
    return jax.random.fold_in(jax.random.key(seed), FIXED_KEYS[purpose])


def metric(name, step):
    """A metric of a step: different for each name, and the square of the step."""
    return NAMES.index(name) + step**2


class Recorder:
    """Replaces training steps, test terms, samples and evaluation by records of the calls.

    After a step, all variables are minus the number of steps, and their average is the number.
    """

    def __init__(self, monkeypatch):
        self.options = {}
        self.dispatches = []
        self.tests = []
        self.saved = []
        self.samples = []
        self.evaluations = []
        self.test_terms = lambda step: {"reconstruction": 100.0 - step, "kl_z": 2.0, "kl_c": 0.5}
        self.signals = {}
        self.first_nonfinite = {}
        # Initialization is compiled for each run.
        monkeypatch.setattr(Run, "initial_state", lambda run: self.fill(run.state_shape(), 0))
        monkeypatch.setattr(parallel, "make_train_steps", self.make_train_steps)
        monkeypatch.setattr(loop, "mean_test_terms", self.mean_test_terms)
        monkeypatch.setattr(loop, "evaluate_run", self.evaluate_run)
        monkeypatch.setattr(
            run_writer.RunWriter,
            "write_samples",
            lambda _, _step, variables: self.samples.append(self.value(variables)),
        )
        save = CheckpointWriter.save

        def recording_save(writer, step, tree, *, negative_elbo, metric_sums):
            self.saved.append((step, negative_elbo, dict(metric_sums)))
            save(writer, step, tree, negative_elbo=negative_elbo, metric_sums=metric_sums)

        monkeypatch.setattr(CheckpointWriter, "save", recording_save)

    @staticmethod
    def fill(tree, value):
        return jax.tree.map(lambda leaf: np.full(leaf.shape, value, leaf.dtype), tree)

    @staticmethod
    def value(variables):
        values = [np.unique(leaf) for leaf in jax.tree.leaves(variables)]
        (value,) = np.unique(np.concatenate(values))
        return value

    def make_train_steps(self, objective, network, _optimizer, **options):
        self.options = {"objective": objective, "latents": network.latents, **options}

        def train_steps(state, data, order, key, stop):
            first, stop = int(state.step), int(stop)
            self.dispatches.append(
                SimpleNamespace(
                    steps=(first, stop),
                    order=np.asarray(order),
                    labels=np.asarray(data.labels),
                    images=np.asarray(data.images),
                    key=key,
                )
            )
            sums = {name: sum(metric(name, step) for step in range(first, stop)) for name in NAMES}
            if stop in self.signals:
                os.kill(os.getpid(), self.signals.pop(stop))
            state = state._replace(
                step=jnp.int32(stop),
                variables=self.fill(state.variables, -stop),
                average=self.fill(state.average, stop),
            )
            nonfinite = {name: self.first_nonfinite.get(name, -1) for name in NAMES}
            return state, StepMetrics(
                {name: jnp.float32(total) for name, total in sums.items()},
                {name: jnp.int32(step) for name, step in nonfinite.items()},
            )

        return train_steps

    def mean_test_terms(self, objective, _network, variables, step, split, key, label_info):
        self.tests.append(
            SimpleNamespace(
                objective=objective,
                value=self.value(variables),
                step=step,
                split=split,
                key=key,
                label_info=label_info,
            )
        )
        return self.test_terms(step)

    def evaluate_run(self, run, dataset, variables, *, step):
        self.evaluations.append((run.workdir, dataset.name, self.value(variables), step))


@pytest.fixture
def recorder(monkeypatch, without_jaxtyping):
    del without_jaxtyping
    return Recorder(monkeypatch)


@pytest.fixture
def config(tmp_path):
    """Five epochs of six steps, saved every two epochs."""
    return replace(SMALL, epochs=5, save_every=2, workdir=str(tmp_path / "run"))


def epochs_of(run):
    return [json.loads(line) for line in run.metrics_path.read_text().splitlines()]


def same_key(first, second):
    return np.array_equal(jax.random.key_data(first), jax.random.key_data(second))


def test_each_epoch_visits_all_examples_in_its_own_order(recorder, config):
    fit(replace(config, seed=3), make_dataset())
    assert [each.steps for each in recorder.dispatches] == [(n, n + 6) for n in range(0, 30, 6)]
    for epoch, dispatch in enumerate(recorder.dispatches, start=1):
        key = jax.random.fold_in(purpose_key("order", seed=3), epoch)
        np.testing.assert_array_equal(dispatch.order, jax.random.permutation(key, 48))
        assert same_key(dispatch.key, purpose_key("train", seed=3))
        for device in range(2):
            np.testing.assert_array_equal(dispatch.labels[device], make_dataset().train_labels)
            np.testing.assert_array_equal(dispatch.images[device], make_dataset().train_images)


def test_training_steps_get_the_settings_of_the_run(recorder, config):
    fit(replace(config, ema_decay=0.5, objective=Ours(beta=3.0)), make_dataset())
    assert recorder.options == {
        "objective": Ours(beta=3.0, capacity_steps=8),
        "latents": 2,
        "batch_size": 8,
        "label_info": LabelInfo(all_labelled=True),
        "ema_decay": 0.5,
        "devices": jax.devices(),
        "mapping": "pmap",
    }


def test_given_devices_are_used(recorder, config):
    fit(config, make_dataset(), devices=jax.devices()[1:])
    assert recorder.options["devices"] == jax.devices()[1:]
    assert {len(each.labels) for each in recorder.dispatches} == {1}


def test_long_epochs_are_dispatched_in_parts(recorder, config, monkeypatch):
    monkeypatch.setattr(feeding, "STEPS_PER_DISPATCH", 4)
    run = fit(replace(config, epochs=2), make_dataset())
    assert [each.steps for each in recorder.dispatches] == [(0, 4), (4, 6), (6, 10), (10, 12)]
    means = [line["train"]["kl_z"] for line in epochs_of(run)]
    assert means == [2 + 55 / 6, 2 + (36 + 49 + 64 + 81 + 100 + 121) / 6]


def test_an_epoch_has_full_batches_only(recorder, config):
    run = fit(replace(config, epochs=2), make_dataset(train=55))
    assert [each.steps for each in recorder.dispatches] == [(0, 6), (6, 12)]
    assert [len(each.order) for each in recorder.dispatches] == [55, 55]
    assert run.total_steps == 12


def test_hidden_labels_are_never_seen(recorder, config):
    """Each batch has two of the six images that keep their label; the other labels are -1."""
    dataset = make_dataset()
    fit(replace(config, num_labels=6, seed=5), dataset)
    kept = keep_labels(dataset.train_labels, 6, 5)
    assert (kept >= 0).sum() == 6
    for dispatch in recorder.dispatches:
        np.testing.assert_array_equal(dispatch.labels, [kept, kept])
        assert ((kept[dispatch.order] >= 0).reshape(6, 8).sum(axis=1) == 2).all()
    assert recorder.options["label_info"] == LabelInfo(labelled_fraction=0.125)
    assert recorder.tests[0].label_info == LabelInfo(labelled_fraction=0.125)


def test_balanced_classes_are_sampled_equally_often(recorder, config):
    dataset = make_dataset()
    labels = np.zeros(48, np.int32)
    labels[[1, 4]], labels[[7, 8]] = 1, 2
    fit(replace(config, balance_classes=True, epochs=10), replace(dataset, train_labels=labels))
    visits = np.concatenate([labels[each.order] for each in recorder.dispatches])
    # Five standard deviations of a binomial distribution of 480 draws.
    assert np.abs(np.bincount(visits) - 160).max() < 5 * np.sqrt(480 * 2 / 9)


def test_epoch_metrics_are_means_over_its_steps(recorder, config):
    run = fit(config, make_dataset())
    lines = epochs_of(run)
    assert [(line["epoch"], line["step"]) for line in lines] == [(n, 6 * n) for n in range(1, 6)]
    for line in lines:
        steps = range(line["step"] - 6, line["step"])
        expected = {name: np.mean([metric(name, step) for step in steps]) for name in NAMES}
        assert line["train"] == pytest.approx(expected)
        assert line["test"] == recorder.test_terms(line["step"])


def test_average_is_tested_sampled_and_evaluated(recorder, config):
    dataset = make_dataset()
    run = fit(replace(config, seed=3), dataset)
    assert [(test.value, test.step) for test in recorder.tests] == [(n, n) for n in range(6, 31, 6)]
    for test in recorder.tests:
        assert test.objective == Ours(capacity_steps=8)
        assert same_key(test.key, purpose_key("test", seed=3))
        np.testing.assert_array_equal(test.split.images, dataset.test_images)
        np.testing.assert_array_equal(test.split.labels, dataset.test_labels)
    assert recorder.samples == [12, 24, 30]
    assert recorder.evaluations == [(run.workdir, "toy", 30, 30)]


def test_saves_every_second_epoch_and_the_last(recorder, config):
    run = fit(config, make_dataset())
    # 100 - step + 2.0 + 0.5
    assert recorder.saved == [(12, 90.5, {}), (24, 78.5, {}), (30, 72.5, {})]
    state = run.load_state()
    assert (int(state.step), Recorder.value(state.average)) == (30, 30)
    assert Recorder.value(state.variables) == -30
    assert Recorder.value(run.model.variables) == 30


def test_best_checkpoint_has_lowest_negative_elbo(recorder, config):
    elbos = {6: 9.0, 12: 8.0, 18: 5.0, 24: 7.0, 30: 6.0}
    recorder.test_terms = lambda step: {"reconstruction": elbos[step]}
    run = fit(replace(config, save_every=1), make_dataset())
    assert [elbo for _, elbo, _ in recorder.saved] == [9.0, 8.0, 5.0, 7.0, 6.0]
    assert int(run.load_state("best").step) == 18
    assert int(run.load_state().step) == 30


@pytest.fixture
def matched(monkeypatch):
    """Steps at which c is matched to the labels."""
    steps = []

    def record(_run, _dataset, _neighbours, state):
        steps.append(int(state.step))
        return state

    monkeypatch.setattr(loop, "_matched_to_labels", record)
    return steps


def few_labels(config):
    objective = Ours(unsupervised_epochs=2)
    return replace(config, num_labels=6, seed=5, save_every=1, objective=objective)


def test_labels_are_used_after_the_unsupervised_epochs(recorder, config, matched):
    """The best checkpoint is then one of the others."""
    dataset = make_dataset()
    recorder.test_terms = lambda step: {"reconstruction": float(step)}
    run = fit(few_labels(config), dataset)
    kept = keep_labels(dataset.train_labels, 6, 5)
    assert matched == [12]
    for epoch, (dispatch, test) in enumerate(zip(recorder.dispatches, recorder.tests, strict=True)):
        is_unsupervised = epoch < 2
        labels = np.full(48, -1) if is_unsupervised else kept
        np.testing.assert_array_equal(dispatch.labels, [labels, labels])
        labelled_per_batch = (kept[dispatch.order] >= 0).reshape(6, 8).sum(axis=1)
        assert is_unsupervised or set(labelled_per_batch) == {2}
        expected = np.full(20, -1) if is_unsupervised else dataset.test_labels
        np.testing.assert_array_equal(test.split.labels, expected)
        fraction = None if is_unsupervised else 0.125
        assert test.label_info == LabelInfo(labelled_fraction=fraction)
    assert [elbo for _, elbo, _ in recorder.saved] == [math.inf, math.inf, 18.0, 24.0, 30.0]
    assert int(run.load_state("best").step) == 18


@pytest.mark.parametrize(
    ("stopped_at", "before", "after"),
    [(10, [], [12]), (12, [], [12]), (14, [12], []), (18, [12], [])],
)
def test_c_is_matched_once(recorder, config, matched, monkeypatch, stopped_at, before, after):
    """At the end of the second epoch, wherever the run is stopped and resumed."""
    monkeypatch.setattr(feeding, "STEPS_PER_DISPATCH", 2)
    recorder.signals[stopped_at] = signal.SIGTERM
    with pytest.raises(SystemExit):
        fit(few_labels(config), make_dataset())
    assert matched == before
    del recorder.dispatches[:], matched[:]
    fit(few_labels(config), make_dataset())
    assert matched == after
    first = recorder.dispatches[0]
    assert first.steps[0] == stopped_at
    assert (first.labels >= 0).any() == (stopped_at >= 12)


@pytest.mark.parametrize(
    ("signal_number", "exception"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)],
)
def test_stop_within_an_epoch_keeps_its_sums(
    recorder, config, monkeypatch, signal_number, exception
):
    """Stopped after the steps 6 to 9 of the second epoch; the mean is over the steps 6 to 11."""
    monkeypatch.setattr(feeding, "STEPS_PER_DISPATCH", 4)
    recorder.signals[10] = signal_number
    with pytest.raises(exception):
        fit(config, make_dataset())
    sums = {name: sum(metric(name, step) for step in range(6, 10)) for name in NAMES}
    assert recorder.saved == [(10, math.inf, sums)]
    assert recorder.samples == recorder.evaluations == []
    del recorder.dispatches[:]
    run = fit(config, make_dataset())
    assert recorder.dispatches[0].steps == (10, 12)
    key = jax.random.fold_in(purpose_key("order"), 2)
    np.testing.assert_array_equal(recorder.dispatches[0].order, jax.random.permutation(key, 48))
    lines = epochs_of(run)
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5]
    assert lines[1]["train"]["loss"] == pytest.approx(np.mean(np.arange(6, 12) ** 2))


def test_stop_at_the_end_of_an_epoch_saves_it(recorder, config):
    recorder.signals[6] = signal.SIGTERM
    with pytest.raises(SystemExit) as info:
        fit(config, make_dataset())
    assert info.value.code == 0
    assert recorder.saved == [(6, 96.5, {})]
    assert recorder.samples == [6]
    assert [test.step for test in recorder.tests] == [6]
    assert recorder.evaluations == []


def test_stop_during_the_test_of_an_epoch_saves_it(recorder, config):
    """The signal comes after the last dispatch of the epoch."""
    terms = recorder.test_terms

    def signalling(step):
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return terms(step)

    recorder.test_terms = signalling
    with pytest.raises(SystemExit):
        fit(config, make_dataset())
    assert [step for step, *_ in recorder.saved] == [6]


def test_divergence_names_first_metrics_that_are_not_finite(recorder, config):
    recorder.first_nonfinite = {"loss": 8, "kl_z": 9, "kl_c": 8}
    with pytest.raises(DivergedError, match=r"not finite at step 8: loss, kl_c\. "):
        fit(config, make_dataset())
    assert recorder.saved == recorder.tests == []


def test_divergence_at_the_first_step(recorder, config):
    recorder.first_nonfinite = {"kl_z": 0}
    with pytest.raises(DivergedError, match=r"not finite at step 0: kl_z\. "):
        fit(config, make_dataset())


@pytest.mark.usefixtures("recorder")
def test_logs_summary_and_labels(config):
    with log_messages() as messages:
        fit(replace(config, num_labels=6), make_dataset())
    assert (
        "ours: 30 steps (epochs: 5, steps per epoch: 6) on 2 x cpu, in " + config.workdir
    ) in messages
    assert "6 of 48 training images are labelled, 2 per class, 2 of 8 in each batch" in messages
    assert "evaluating on 20 test images" in messages
    assert not [message for message in messages if "of these classes" in message]


@pytest.mark.usefixtures("recorder")
def test_logs_labels_of_some_classes(config):
    dataset = make_dataset()
    dataset.train_labels[dataset.train_labels == 1] = -1
    dataset.train_labels[0] = -1
    with log_messages() as messages:
        fit(config, dataset)
    assert "31 of 48 training images are labelled, 0 to 16 per class" in messages
    assert (
        "no training image of these classes is labelled, so c is unsupervised for them: b"
    ) in messages


@pytest.mark.usefixtures("recorder")
def test_logs_that_nothing_is_labelled(config):
    with log_messages() as messages:
        fit(replace(config, num_labels=0), make_dataset())
    assert "no training image is labelled, so c is unsupervised" in messages
    assert not [message for message in messages if "are labelled" in message]


@pytest.mark.usefixtures("recorder")
def test_logs_nothing_of_labels_if_there_are_all(config):
    with log_messages() as messages:
        fit(config, make_dataset())
    assert messages == [
        f"ours: 30 steps (epochs: 5, steps per epoch: 6) on 2 x cpu, in {config.workdir}",
        "capacities increase from 0 over 8 steps",
        "evaluating on 20 test images",
    ]


@pytest.mark.usefixtures("recorder")
def test_logs_no_capacities_if_the_objective_has_none(config):
    with log_messages() as messages:
        fit(replace(config, objective=VAE()), make_dataset())
    assert len(messages) == 2


@pytest.mark.usefixtures("recorder")
@pytest.mark.parametrize(("capacity", "is_capped"), [(1.1, True), (1.09, False)])
def test_warns_of_a_capacity_above_log_of_the_classes(config, capacity, is_capped):
    """log 3 is 1.0986."""
    with log_messages() as messages:
        fit(replace(config, objective=JointVAE(capacity_c=capacity)), make_dataset())
    capped = [message for message in messages if message.startswith("C_c is capped at log 3")]
    assert len(capped) == is_capped


@pytest.mark.usefixtures("recorder")
@pytest.mark.parametrize(
    ("objective", "names", "hints"),
    [(Ours(), "aいc", 1), (Ours(), "abc", 0), (JointVAE(), "aいc", 0), (VAE(), "aいc", 0)],
)
def test_warns_if_no_font_has_the_names_in_the_grid(config, monkeypatch, objective, names, hints):
    """Unlabelled categories are named c0, c1 and c2."""
    monkeypatch.setattr("jvae_jax.plotting.font_hint", lambda names: f"no font for {names}")
    dataset = replace(make_dataset(), class_names=tuple(names))
    with log_messages() as messages:
        fit(replace(config, objective=objective), dataset)
    assert messages.count(f"no font for {tuple(names)}") == hints
    assert len([message for message in messages if "no font" in message]) == hints


@pytest.mark.usefixtures("recorder")
def test_logs_number_of_processes(config, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(distributed, "broadcast_from_first", lambda tree: tree)
    monkeypatch.setattr(distributed, "maximum", lambda number: number)
    monkeypatch.setattr(distributed, "gather", lambda value: [value])
    with log_messages() as messages:
        fit(config, make_dataset())
    assert " on 2 x cpu of 2 processes, in " in messages[0]


def test_processes_compare_settings_and_devices(recorder, config, monkeypatch):
    compared = {}
    monkeypatch.setattr(distributed, "check_equal", compared.update)
    fit(config, make_dataset(), devices=jax.devices()[1:])
    assert compared["device ids"] == [1]
    assert compared["devices"] == "1 x cpu"
    assert compared["data with fingerprint"] == make_dataset().fingerprint
    assert compared["learning_rate"] == config.learning_rate
    assert compared["jax"] == jax.__version__
    assert "workdir" not in compared
    assert "machine" not in compared
    assert recorder.dispatches


@pytest.mark.parametrize("step", [30, 24, None])
def test_finished_run_is_evaluated_unless_it_was(recorder, config, step):
    """By the step of its evaluation; None if it has none."""
    run = fit(config, make_dataset())
    if step is not None:
        (run.workdir / "evaluation.json").write_text(json.dumps({"step": step}))
    del recorder.dispatches[:], recorder.evaluations[:], recorder.saved[:]
    with log_messages() as messages:
        fit(config, make_dataset())
    assert recorder.dispatches == recorder.saved == []
    assert [evaluated for *_, evaluated in recorder.evaluations] == ([] if step == 30 else [30])
    finished = f"{run.workdir} is finished: all 30 steps are done and evaluated"
    assert (finished in messages) == (step == 30)


def test_profiles_the_second_dispatch_only(recorder, config, monkeypatch):
    """The first one compiles."""
    traced = []

    @contextmanager
    def trace(folder, *, create_perfetto_trace):
        before = len(recorder.dispatches)
        yield
        traced.append((folder, create_perfetto_trace, before, len(recorder.dispatches)))

    monkeypatch.setattr(jax.profiler, "trace", trace)
    fit(config, make_dataset())
    assert traced == []
    workdir = f"{config.workdir}-profiled"
    del recorder.dispatches[:]
    run = fit(replace(config, workdir=workdir, profile=True), make_dataset())
    assert traced == [(run.workdir / "profile", True, 1, 2)]


@pytest.mark.usefixtures("recorder")
def test_prints_progress_of_each_epoch(config, capsys):
    fit(config, make_dataset())
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" | ")[0] for line in lines] == [f"epoch {n}/5" for n in range(1, 6)]
    assert lines[0].split(" | ")[2] == "test reconstruction 94  kl_z 2  kl_c 0.5"


def test_only_the_first_process_reads_and_writes(recorder, config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(distributed, "is_first", lambda: False)
    with log_messages() as messages:
        run = fit(config, make_dataset())
    assert [each.steps for each in recorder.dispatches] == [(n, n + 6) for n in range(0, 30, 6)]
    assert list(tmp_path.iterdir()) == []
    assert recorder.saved == recorder.evaluations == messages == []
    assert capsys.readouterr().err == ""
    assert run.total_steps == 30


def test_other_processes_start_from_the_state_of_the_first(recorder, config, monkeypatch):
    """The first one has finished the second epoch."""

    def broadcast(tree):
        state, _ = tree
        return state._replace(step=np.int32(12)), np.int32(-1)

    monkeypatch.setattr(distributed, "is_first", lambda: False)
    monkeypatch.setattr(distributed, "broadcast_from_first", broadcast)
    fit(config, make_dataset())
    assert [each.steps for each in recorder.dispatches] == [(12, 18), (18, 24), (24, 30)]


@pytest.mark.usefixtures("recorder")
def test_damaged_checkpoints_are_set_aside_with_a_warning(config):
    run = fit(config, make_dataset())
    (run.checkpoints_path / "30" / "metrics" / "metrics").write_text("{")
    with log_messages() as messages:
        fit(config, make_dataset())
    assert messages[0].startswith("the checkpoint of step 30 is damaged (")
    assert messages[1] == f"moved to {run.workdir / 'damaged_checkpoints'}"
    assert messages[2] == f"resuming from step 24 of 30 in {run.workdir}"
    assert checkpoints.metric_sums(run.checkpoints_path, 30) == {}

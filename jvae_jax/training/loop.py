"""A whole training run: from a configuration to a folder with a trained, evaluated model."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jvae_jax.data import Dataset
from jvae_jax.evaluation.classifier import EvalClassifier
from jvae_jax.evaluation.conditional import conditional_metrics
from jvae_jax.evaluation.disentanglement import disentanglement
from jvae_jax.evaluation.metrics import Evaluation, evaluate, mean_test_terms
from jvae_jax.evaluation.style_transfer import restyled
from jvae_jax.files import write_json
from jvae_jax.objectives import Objective
from jvae_jax.training import checkpoints, distributed, parallel
from jvae_jax.training.batching import balanced_order, epoch_order, mixed_order
from jvae_jax.training.config import TrainConfig
from jvae_jax.training.distributed import Interruption, interruptions
from jvae_jax.training.progress import ProgressReport
from jvae_jax.training.provenance import environment
from jvae_jax.training.run import Run, plan_run, start_run, visible_dataset
from jvae_jax.training.run_writer import RunWriter
from jvae_jax.training.step import TrainState, metric_names
from jvae_jax.training.summary import announcement
from jvae_jax.types import Batch, Devices

_BOUND = ("reconstruction", "kl_z", "kl_c")
"""The terms of the negative ELBO."""


def fit(
    config: TrainConfig,
    dataset: Dataset,
    *,
    devices: Devices | None = None,
    say: Callable[[str], None] = print,
    show: Callable[[Path], None] | None = None,
) -> Run:
    """Trains, or goes on training, as a configuration says, and evaluates at the end.

    Interrupted at any moment and called again, it ends with the same parameters, optimiser state
    and metrics as if it had never stopped. SIGINT and SIGTERM let it finish some steps and save
    them before it leaves, as :func:`~jvae_jax.training.distributed.interruptions` says; a second one
    doesn't.

    Of several processes (:mod:`~jvae_jax.training.distributed`), which all must call it alike, only the first one
    reads and writes the run's folder, speaks and evaluates.

    Args:
        config: what to train. What it leaves open is filled in from the data.
        dataset: what to train on.
        devices: where; default: all, of all processes.
        say: is told, in sentences, what happens.
        show: is given the path of the sheet of samples whenever that was drawn.

    Returns:
        The finished run.

    Raises:
        ValueError: if the folder holds something else or a run of another configuration, the batch
            doesn't fit the data or the devices, or a value is out of range.
        CheckpointError: if there are checkpoints, but none that can be read, or one can't be
            written.
        DivergedError: if a term isn't finite any more; the last checkpoint is from before.
        OSError: if the folder can't be written.
    """
    devices = jax.devices() if devices is None else devices
    parallel.check_batch(config.batch_size, len(dataset.train_labels), len(devices))
    first = distributed.is_first()
    say = say if first else _keep_quiet
    run = (start_run if first else plan_run)(config.resolve(dataset), dataset)
    # From here to the evaluation nothing sees a label that is hidden.
    whole, dataset = dataset, visible_dataset(run.config, dataset)
    objective = _objective(run, dataset)
    state = _initial_or_restored(run, say) if first else run.initial_state()
    evaluated = run.evaluation().get("step", -1) if first else -1
    state, evaluated = distributed.from_first((state, evaluated))
    if int(state.step) == run.total_steps == evaluated:
        say(f"{run.workdir} is finished: all {run.total_steps} steps are done and evaluated")
        return run
    for sentence in announcement(run, objective, dataset, devices):
        say(sentence)
    state = _train(run, objective, dataset, state, devices, show)
    say(f"evaluating on {run.data.test_examples} test images")
    if first:
        evaluate_run(run, whole, state)
    return run


def evaluate_run(
    run: Run,
    dataset: Dataset,
    state: TrainState,
    *,
    filename: str = "evaluation.json",
    eval_classifier: EvalClassifier | None = None,
) -> Evaluation:
    """A trained run's metrics over the whole test split, which it keeps in a file of its folder.

    Args:
        run: what was trained.
        dataset: what it was trained on.
        state: of its training.
        filename: of the file.
        eval_classifier: of the same data; with it, the metrics include those of
            :func:`~jvae_jax.evaluation.conditional.conditional_metrics`, :func:`~jvae_jax.evaluation.style_transfer.restyled` and
            :func:`~jvae_jax.evaluation.disentanglement.disentanglement`.

    Raises:
        ValueError: if these aren't the data it was trained on.
    """
    run.check_data(dataset)
    metrics = evaluate(
        run.model,
        state.average,
        Batch(dataset.test_images, dataset.test_labels),
        run.key("test"),
        unlabelled_classes=run.unlabelled_classes if run.model.classes else (),
    )
    if eval_classifier is not None:
        metrics |= disentanglement(run.model, state.average, dataset)
        about = run.model, state.average, eval_classifier, dataset, run.key("test")
        metrics |= conditional_metrics(*about, category_to_class=metrics.get("category_to_class"))
        if run.model.classes:
            metrics |= restyled(*about, category_to_class=metrics.get("category_to_class"))
    evaluation = {"step": int(state.step), **metrics, "environment": environment()}
    write_json(run.workdir / filename, evaluation)
    return evaluation


def _keep_quiet(_sentence: str) -> None:
    pass


def _objective(run: Run, dataset: Dataset) -> Objective:
    labels = dataset.train_labels
    mixed = run.config.labelled_per_batch(labels) is not None
    return run.config.make_objective(
        all_labelled=dataset.all_labelled,
        labelled_fraction=float(np.mean(labels >= 0)) if mixed else None,
    )


def _initial_or_restored(run: Run, say: Callable[[str], None]) -> TrainState:
    folder = run.checkpoints_path
    state, damaged = checkpoints.restore_latest(folder, run.state_shape())
    for step, reason in damaged.items():
        say(f"the checkpoint of step {step} is damaged ({reason})")
    if damaged:
        say(f"set aside in {checkpoints.set_aside(folder, damaged)}")
    if state is None:
        return run.initial_state()
    say(f"going on from step {int(state.step)} of {run.total_steps} in {run.workdir}")
    return state


def _train(
    run: Run,
    objective: Objective,
    dataset: Dataset,
    state: TrainState,
    devices: Devices,
    show: Callable[[Path], None] | None,
) -> TrainState:
    """Goes from a state that was saved to the end of the run, or to where someone asks to stop."""
    assert run.config.save_every is not None
    trainer = Trainer(run, objective, dataset, devices)
    test_split = Batch(dataset.test_images, dataset.test_labels)
    per_epoch = run.steps_per_epoch
    step = int(state.step)
    with interruptions() as interruption, RunWriter(run, step, show) as records:
        sums = records.sums
        for epoch in range(step // per_epoch + 1, run.config.epochs + 1):
            state, sums = trainer.train_epoch(state, epoch, sums, records.progress, interruption)
            step = int(state.step)
            if step < epoch * per_epoch:
                records.save(state, negative_elbo=math.inf, sums=sums)
                interruption.leave()
            train_terms = {name: total / per_epoch for name, total in sums.items()}
            sums = {}
            variables = jax.device_get(state.average)
            test_terms = mean_test_terms(
                objective, run.model, variables, step, test_split, run.key("test")
            )
            records.epoch(epoch, step, train_terms, test_terms)
            last = epoch == run.config.epochs
            if interruption.agree() or last or epoch % run.config.save_every == 0:
                bound = sum(test_terms.get(name, 0.0) for name in _BOUND)
                bound = math.inf if math.isnan(bound) else bound
                # In this order, since what is saved isn't trained, nor its sheet drawn, again.
                records.samples(variables)
                records.save(state, negative_elbo=bound, sums=sums)
            if interruption:
                interruption.leave()
    return state


_STEPS_PER_DISPATCH = 100


class DivergedError(ArithmeticError):
    """A term of the loss, or the gradient, stopped being finite."""


class Trainer:
    """A run's training data and compiled steps, on its devices."""

    def __init__(self, run: Run, objective: Objective, dataset: Dataset, devices: Devices) -> None:
        """Puts the data on the devices."""
        self._run = run
        self._names = metric_names(objective)
        self._devices = devices
        self._data = parallel.replicate(Batch(dataset.train_images, dataset.train_labels), devices)
        self._train_steps = parallel.make_train_steps(
            objective,
            run.model,
            run.optimizer,
            batch_size=run.config.batch_size,
            ema_decay=run.config.ema_decay,
            devices=devices,
        )
        self._labels = dataset.train_labels
        self._labelled_per_batch = run.config.labelled_per_batch(dataset.train_labels)
        self._dispatches = 0

    def train_epoch(
        self,
        state: TrainState,
        epoch: int,
        sums: Mapping[str, float],
        report: ProgressReport,
        interruption: Interruption,
    ) -> tuple[TrainState, dict[str, float]]:
        """Goes to the end of an epoch, or to where someone asks to stop.

        Args:
            state: at the epoch's beginning, or where it was left.
            epoch: counted from 1.
            sums: of its steps' metrics so far, if it was left.
            report: is told.
            interruption: is heeded after each dispatch.

        Returns:
            The state after, and the sums of the metrics of the epoch's steps until there.

        Raises:
            DivergedError: if a metric isn't finite any more.
        """
        run = self._run
        order, state = parallel.place((self._order(epoch), state), self._devices)
        sums = dict(sums) or dict.fromkeys(self._names, 0.0)
        end = epoch * run.steps_per_epoch
        for step in range(int(state.step), end, _STEPS_PER_DISPATCH):
            stop = min(step + _STEPS_PER_DISPATCH, end)
            with self._profiled():
                state, progress = self._train_steps(
                    state, self._data, order, run.key("train"), jnp.int32(stop)
                )
                progress = jax.device_get(progress)
            self._check_finite({name: int(progress.first_bad_step[name]) for name in self._names})
            done = {name: float(progress.sums[name]) for name in self._names}
            sums = {name: sums[name] + done[name] for name in self._names}
            report.steps(stop, {name: total / (stop - step) for name, total in done.items()})
            if interruption.agree():
                break
        return state, sums

    def _order(self, epoch: int) -> Array:
        key = self._run.key("order")
        if self._run.config.balance_classes:
            return balanced_order(key, epoch, self._labels)
        if self._labelled_per_batch is None:
            return epoch_order(key, epoch, len(self._labels))
        return mixed_order(
            key,
            epoch,
            np.flatnonzero(self._labels >= 0),
            np.flatnonzero(self._labels < 0),
            batch_size=self._run.config.batch_size,
            labelled_per_batch=self._labelled_per_batch,
        )

    @contextmanager
    def _profiled(self) -> Iterator[None]:
        """Traces the second dispatch, if that is asked for; the first one compiles."""
        self._dispatches += 1
        if not (self._run.config.profile and self._dispatches == 2):
            yield
            return
        with jax.profiler.trace(self._run.workdir / "profile", create_perfetto_trace=True):
            yield

    def _check_finite(self, first_bad_step: dict[str, int]) -> None:
        bad = {name: step for name, step in first_bad_step.items() if step >= 0}
        if bad:
            first = min(bad.values())
            names = ", ".join(name for name, step in bad.items() if step == first)
            raise DivergedError(
                f"not finite at step {first}: {names}. {self._run.checkpoints_path} holds the "
                "last good state; a lower --learning_rate may help, in another --workdir"
            )

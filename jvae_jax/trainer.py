"""The epochs of a run: dispatches of many steps, watched for broken numbers."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jvae_jax import parallel
from jvae_jax.data import Dataset
from jvae_jax.interruptions import Interruption
from jvae_jax.objectives import Objective
from jvae_jax.progress import ProgressReport
from jvae_jax.runs import Run
from jvae_jax.semi_supervised import mixed_order
from jvae_jax.training import TrainState, balanced_order, epoch_order, metric_names
from jvae_jax.types import Batch, Devices

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

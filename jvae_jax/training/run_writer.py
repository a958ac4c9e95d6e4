"""Writes a run's metrics, checkpoints and sample grids, in the first process only."""

import io
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from jvae_jax.files import append, atomic_write
from jvae_jax.training import checkpoints, distributed
from jvae_jax.training.checkpoints import CheckpointWriter
from jvae_jax.training.logbook import open_logbook
from jvae_jax.training.progress import ProgressReport
from jvae_jax.training.run import Run, settings
from jvae_jax.training.step import TrainState
from jvae_jax.types import Variables


class RunWriter:
    """Context manager that writes a run's files from the step at which training starts."""

    progress: ProgressReport
    """Progress, on stderr."""
    metric_sums: Mapping[str, float]
    """Sums of the metrics of the epoch so far, if training resumes within one."""

    def __init__(
        self, run: Run, step: int, on_samples: Callable[[Path], None] | None = None
    ) -> None:
        """Opens the run's files and drops the metrics of later epochs.

        Args:
            run: run whose folder is written.
            step: step at which training starts.
            on_samples: called with the path of samples.png whenever it is rewritten.
        """
        self._run = run
        self._on_samples = on_samples
        self._writes = distributed.is_first()
        self._closing = ExitStack()
        self._checkpoints = CheckpointWriter(run.checkpoints_path) if self._writes else None
        if self._checkpoints is not None:
            self._closing.callback(self._checkpoints.close)
        self.metric_sums = {}
        self._logbook = None
        if self._writes:
            self._logbook = open_logbook(run.config.log, run.workdir, settings(run.config), step)
            _truncate_lines(run.metrics_path, step // run.steps_per_epoch)
            if step % run.steps_per_epoch:
                self.metric_sums = checkpoints.metric_sums(run.checkpoints_path, step)
        progress = ProgressReport(
            epochs=run.config.epochs,
            steps_per_epoch=run.steps_per_epoch,
            batch_size=run.config.batch_size,
            step=step,
            stream=sys.stderr if self._writes else io.StringIO(),
        )
        self.progress = self._closing.enter_context(progress)

    def __enter__(self) -> "RunWriter":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        with self._closing:
            if self._logbook is not None:
                self._logbook.close(failed=error is not None)

    def steps(self, step: int, terms: Mapping[str, float]) -> None:
        """Reports that all steps up to ``step`` are finished, with their mean terms.

        Raises:
            CheckpointError: if a checkpoint can't be written.
        """
        self.progress.steps(step, terms)
        if self._checkpoints is not None:
            self._checkpoints.check()

    def write_epoch(
        self, epoch: int, step: int, train: Mapping[str, float], test: Mapping[str, float]
    ) -> None:
        """Appends the mean terms of an epoch to metrics.jsonl and reports them."""
        record = {"epoch": epoch, "step": step, "train": dict(train), "test": dict(test)}
        if self._writes:
            append(self._run.metrics_path, json.dumps(record) + "\n")
        if self._logbook is not None:
            terms = {"train": train, "test": test}
            named = {
                f"{split}/{name}": terms[split][name] for split in terms for name in terms[split]
            }
            self._logbook.write_epoch(step, named)
        self.progress.epoch(step, train, test)

    def save_checkpoint(
        self, state: TrainState, *, negative_elbo: float, metric_sums: Mapping[str, float]
    ) -> None:
        """Saves a checkpoint; see :meth:`CheckpointWriter.save`."""
        if self._checkpoints is not None:
            self._checkpoints.save(
                int(state.step), state, negative_elbo=negative_elbo, metric_sums=metric_sums
            )

    def wait(self) -> None:
        """Waits until all checkpoints are on disk.

        Raises:
            CheckpointError: if one can't be written.
        """
        if self._checkpoints is not None:
            self._checkpoints.wait()

    def write_curves(self) -> None:
        """Rewrites curves.png from metrics.jsonl."""
        if not self._writes:
            return
        from jvae_jax import plotting

        lines = self._run.metrics_path.read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        if not records:
            return
        epochs = [float(record["epoch"]) for record in records]
        charts = {
            name: {
                split: (epochs, [record[split][name] for record in records])
                for split in ("train", "test")
                if name in records[0][split]
            }
            for name in records[0]["train"]
        }
        figure = plotting.line_charts(charts, "epoch", columns=3, markers=False)
        with atomic_write(self._run.workdir / "curves.png") as file:
            figure.savefig(file, format="png")

    def write_samples(self, step: int, variables: Variables) -> None:
        """Rewrites samples.png.

        Args:
            step: training step of the variables.
            variables: moving average of the trained variables.
        """
        if not self._writes:
            return
        # matplotlib is slow to import, and only figures need it.
        from jvae_jax import plotting

        run = self._run
        model = run.make_model(variables, step=step)
        figure = plotting.sample_grid(model, run.key("samples"))
        with atomic_write(run.workdir / "samples.png") as file:
            figure.savefig(file, format="png")
        if self._logbook is not None:
            self._logbook.write_samples(step, run.workdir / "samples.png")
        if self._on_samples is not None:
            self._on_samples(run.workdir / "samples.png")


def _truncate_lines(path: Path, count: int) -> None:
    """Keeps the first ``count`` lines of a file, which may not exist yet."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    with atomic_write(path) as file:
        file.writelines(lines[:count])

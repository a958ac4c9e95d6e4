"""What a run leaves in its folder as it trains. Of several processes, only the first one does."""

import io
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jvae_jax.files import replacing
from jvae_jax.generation.characters import sample
from jvae_jax.training import checkpoints, distributed
from jvae_jax.training.checkpoints import CheckpointWriter
from jvae_jax.training.progress import ProgressReport
from jvae_jax.training.run import Run
from jvae_jax.training.step import TrainState
from jvae_jax.types import Variables

_SHEET_SIDE = 10


class RunWriter:
    """Metrics, checkpoints and sample sheets, from the step at which training begins or goes on."""

    progress: ProgressReport
    """For people, on stderr."""

    def __init__(self, run: Run, step: int, show: Callable[[Path], None] | None = None) -> None:
        """Drops the metrics of what came after that step.

        Args:
            run: of the folder.
            step: at which training begins.
            show: is given the sheet of samples whenever it was drawn.
        """
        self._run = run
        self._show = show
        self._writing = distributed.is_first()
        self._closing = ExitStack()
        self._writer = CheckpointWriter(run.checkpoints_path) if self._writing else None
        if self._writer is not None:
            self._closing.callback(self._writer.close)
        per_epoch = run.steps_per_epoch
        self.sums: Mapping[str, float] = {}
        """Of the metrics of the epoch so far, where training was left in the middle of one."""
        if self._writing:
            _keep_lines(run.metrics_path, step // per_epoch)
            if step % per_epoch:
                self.sums = checkpoints.sums_at(run.checkpoints_path, step)
        progress = ProgressReport(
            epochs=run.config.epochs,
            steps_per_epoch=per_epoch,
            batch_size=run.config.batch_size,
            step=step,
            stream=sys.stderr if self._writing else io.StringIO(),
        )
        self.progress = self._closing.enter_context(progress)

    def __enter__(self) -> "RunWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def epoch(
        self, epoch: int, step: int, train: Mapping[str, float], test: Mapping[str, float]
    ) -> None:
        """Keeps and tells the terms of an epoch."""
        record = {"epoch": epoch, "step": step, "train": dict(train), "test": dict(test)}
        if self._writing:
            with self._run.metrics_path.open("a", encoding="utf-8") as metrics:
                metrics.write(json.dumps(record) + "\n")
        self.progress.epoch(step, train, test)

    def save(self, state: TrainState, *, negative_elbo: float, sums: Mapping[str, float]) -> None:
        """Saves a checkpoint, as :meth:`CheckpointWriter.save` does."""
        if self._writer is not None:
            self._writer.save(int(state.step), state, negative_elbo=negative_elbo, sums=sums)

    def samples(self, variables: Variables) -> None:
        """Draws the sheet of samples anew."""
        if not self._writing:
            return
        # Importing matplotlib takes a while, and only figures need it.
        from jvae_jax import plotting

        run = self._run
        has_classes = run.model.classes > 0
        images = sample(
            run.model,
            variables,
            run.key("samples"),
            labels=jnp.arange(run.model.classes) if has_classes else None,
            rows=_SHEET_SIDE,
            columns=_SHEET_SIDE,
        )
        names = run.category_names if has_classes else None
        with replacing(run.workdir / "samples.png") as file:
            plotting.sheet(np.asarray(images), names).savefig(file, format="png")
        if self._show is not None:
            self._show(run.workdir / "samples.png")


def _keep_lines(path: Path, count: int) -> None:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    with replacing(path) as file:
        file.write("".join(lines[:count]).encode())

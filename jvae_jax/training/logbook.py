"""Records of a run for TensorBoard and Weights & Biases, beside metrics.jsonl."""

# pyright: reportMissingImports=false

import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

LogbookKind = Literal["none", "tensorboard", "wandb"]
"""Where a run is recorded, apart from its own files."""

TENSORBOARD, WANDB = "tensorboard", "wandb"
"""Folders of the records in the run's folder."""


class Logbook(ABC):
    """Record of a run: scalars for each epoch, and sample grids."""

    @abstractmethod
    def write_epoch(self, step: int, terms: Mapping[str, float]) -> None:
        """Records the terms of an epoch, named such as ``train/kl_z``, at its last step."""

    @abstractmethod
    def write_samples(self, step: int, path: Path) -> None:
        """Records a sample grid, a PNG file."""

    @abstractmethod
    def close(self, *, failed: bool) -> None:
        """Writes what is pending, and whether training failed or was stopped."""


def open_logbook(
    kind: LogbookKind, workdir: Path, settings: Mapping[str, Any], step: int
) -> Logbook | None:
    """Opens the record of a run, which training continues after ``step``.

    Args:
        kind: "tensorboard", "wandb" (offline, unless $WANDB_MODE is set), or "none".
        workdir: folder of the run, in which the record gets a folder of its own.
        settings: hyperparameters by name.
        step: step at which training starts; TensorBoard hides what was recorded after it.

    Raises:
        RuntimeError: if the library isn't installed.
    """
    try:
        if kind == "tensorboard":
            return _TensorBoard(workdir / TENSORBOARD, settings, step)
        if kind == "wandb":
            return _WeightsAndBiases(workdir, settings)
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"{error}; log={kind} needs it: pip install -e '.[{kind}]' in a clone"
        ) from error
    return None


class _TensorBoard(Logbook):
    def __init__(self, folder: Path, settings: Mapping[str, Any], step: int) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=step + 1)
        self._settings = {
            name: value if isinstance(value, (bool, int, float, str)) else str(value)
            for name, value in settings.items()
        }
        self._step, self._terms = step, dict[str, float]()

    def write_epoch(self, step: int, terms: Mapping[str, float]) -> None:
        for name, value in terms.items():
            self._writer.add_scalar(name, value, step)
        self._step, self._terms = step, dict(terms)
        self._writer.flush()

    def write_samples(self, step: int, path: Path) -> None:
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        self._writer.add_image("samples", pixels, step, dataformats="HWC")
        self._writer.flush()

    def close(self, *, failed: bool) -> None:
        if not failed:
            final = {f"final/{name}": value for name, value in self._terms.items()}
            self._writer.add_hparams(self._settings, final, name="settings", global_step=self._step)
        self._writer.close()


class _WeightsAndBiases(Logbook):
    def __init__(self, workdir: Path, settings: Mapping[str, Any]) -> None:
        import wandb

        self._image = wandb.Image
        identifier = workdir / WANDB / "run-id.txt"  # the same on resume
        if not identifier.exists():
            identifier.parent.mkdir(exist_ok=True)
            identifier.write_text(uuid.uuid4().hex)
        self._run = wandb.init(
            project="jvae_jax",
            name=workdir.name,
            id=identifier.read_text(),
            resume="allow",
            dir=str(workdir),
            config=dict(settings),
            mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
            settings=wandb.Settings(console="off", save_code=False, disable_git=True),
        )

    def write_epoch(self, step: int, terms: Mapping[str, float]) -> None:
        self._run.log(dict(terms), step=step)

    def write_samples(self, step: int, path: Path) -> None:
        self._run.log({"samples": self._image(str(path))}, step=step)

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))

"""``jvae export``: exports a trained model."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from jvae_jax import cli
from jvae_jax.export import can_export_onnx, export
from jvae_jax.pretrained import load
from jvae_jax.training.run import load_run

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ExportFlags:
    """Export flags."""

    workdir: str
    """Folder of the run."""
    output: str
    """Folder to create."""


def run_command(flags: ExportFlags) -> None:
    """Exports the model of the latest checkpoint."""
    onnx = can_export_onnx()
    if not onnx:
        logger.warning("skipping ONNX, which needs jax2onnx: pip install -e '.[export]' in a clone")
    output = Path(flags.output).expanduser()
    files = export(load(flags.workdir), load_run(flags.workdir), output, onnx=onnx)
    print(f"{', '.join(files)} in {output}")


def main(args: Sequence[str] | None = None, prog: str | None = None) -> NoReturn:
    """Runs the command."""
    description = "Export a trained model as safetensors and ONNX."
    cli.run(run_command, ExportFlags, description=description, args=args, prog=prog)

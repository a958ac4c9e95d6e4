"""Exports a trained model: python experiments/export.py --workdir=runs/digits --output=digits"""

from dataclasses import dataclass
from pathlib import Path

from jvae_jax import cli
from jvae_jax.export.onnx import can_write_onnx, export
from jvae_jax.pretrained import load
from jvae_jax.validation import option


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    workdir: str = option("the run to export")
    output: str = option("the folder to make")


def run_command(config: ExportConfig) -> None:
    onnx = can_write_onnx()
    if not onnx:
        print("no ONNX, which takes jax2onnx: pip install -e '.[export]'")
    output = Path(config.output).expanduser()
    names = export(load(config.workdir), output, onnx=onnx)
    print(f"{', '.join(names)} in {output}")


def main() -> None:
    cli.run(run_command, ExportConfig, description="Write a trained model for others to load.")

"""Exports a trained model: python experiments/export.py --workdir=runs/digits --output=digits"""

from dataclasses import dataclass
from pathlib import Path

from jvae_jax import cli
from jvae_jax.exporting import can_write_onnx, export
from jvae_jax.options import option
from jvae_jax.trained import load


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    workdir: str = option("the run to export")
    output: str = option("the folder to make")


def main(config: ExportConfig) -> None:
    onnx = can_write_onnx()
    if not onnx:
        print("no ONNX, which takes jax2onnx: pip install -e '.[export]'")
    output = Path(config.output).expanduser()
    names = export(load(config.workdir), output, onnx=onnx)
    print(f"{', '.join(names)} in {output}")


if __name__ == "__main__":
    cli.run(main, ExportConfig, description="Write a trained model for others to load.")

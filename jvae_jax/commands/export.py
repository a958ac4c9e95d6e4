"""``jvae export``: exports a trained model."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from jvae_jax import cli
from jvae_jax.app import build_page
from jvae_jax.commands._model_flags import DEFAULT_MODEL, ModelFlags, load_selected_run
from jvae_jax.export import can_export_onnx, export, new_folder
from jvae_jax.hub import check_upload, push_to_hub

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ExportFlags(ModelFlags):
    """Export flags."""

    output: str
    """Folder to create."""
    page: bool = False
    """Export a web page in which the model runs, index.html, in place of weights and networks."""
    hub: str | None = None
    """Upload the folder to the Hugging Face Hub, as OWNER/NAME."""
    private: bool = False
    """Make a new repository on the Hub private."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.page and self.hub is not None:
            raise ValueError(f"hub {self.hub} takes weights, but page exports none; leave one out")
        if self.hub is not None:
            check_upload(self.hub)


def run_command(flags: ExportFlags) -> None:
    """Exports the model of the latest checkpoint."""
    output = Path(flags.output).expanduser()
    run = load_selected_run(flags, default=DEFAULT_MODEL if flags.page else None)
    if flags.page:
        page = build_page(run.model)
        with new_folder(output) as folder:
            (folder / "index.html").write_text(page, encoding="utf-8")
        print(f"index.html in {output}")
        return
    onnx = can_export_onnx()
    if not onnx:
        logger.warning("skipping ONNX, which needs jax2onnx: pip install -e '.[export]' in a clone")
    files = export(run.model, run, output, onnx=onnx)
    print(f"{', '.join(files)} in {output}")
    if flags.hub is not None:
        print(f"uploaded to {push_to_hub(output, flags.hub, private=flags.private)}")


def main(args: Sequence[str] | None = None, prog: str | None = None) -> NoReturn:
    """Runs the command."""
    description = "Export a trained model: as safetensors and ONNX, or as a web page."
    cli.run(run_command, ExportFlags, description=description, args=args, prog=prog)

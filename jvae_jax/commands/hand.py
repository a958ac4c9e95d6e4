"""``jvae hand``: estimates a hand from pictures of characters, and saves it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from jvae_jax import cli, plotting
from jvae_jax.commands._hand_flags import load_pictures, picture_paths
from jvae_jax.commands._model_flags import DEFAULT_MODEL, ModelFlags, load_selected_run
from jvae_jax.files import atomic_write, check_regular_file, file_suffix
from jvae_jax.handwriting.hand import Hand, estimate_hand
from jvae_jax.trained_model import TrainedModel

_MAX_COLUMNS = 20
"""Characters in a row of the preview."""


@dataclass(frozen=True, kw_only=True)
class EstimateHandFlags(ModelFlags):
    """Flags of the hand."""

    style_image: str
    """Comma-separated image files in the hand: pictures of one character each, or scanned sheets of
    several, with room between them."""
    output: str = "me.hand.json"
    """File of the hand to write."""
    preview: str | None = None
    """Image to write, of the characters as they were found, and drawn again in the hand. By default
    beside the output, with the suffix .png."""

    def __post_init__(self) -> None:
        super().__post_init__()
        file_suffix(self.output)
        plotting.figure_format(str(self.preview_path))
        pictures = [path.resolve() for path in picture_paths(self.style_image)]
        written = [Path(self.output).expanduser().resolve(), self.preview_path.resolve()]
        if written[0] == written[1]:
            raise ValueError(f"output and preview are both {self.output}; choose another")
        for name, path in zip(("output", "preview"), written, strict=True):
            if path in pictures:
                raise ValueError(f"{name} {path.name} would replace a picture; choose another")

    @property
    def preview_path(self) -> Path:
        """Path of the preview."""
        if self.preview is not None:
            return Path(self.preview).expanduser()
        return Path(self.output).expanduser().with_suffix(".png")


def run_command(flags: EstimateHandFlags) -> None:
    """Estimates the hand, and writes it and the preview."""
    output = Path(flags.output).expanduser()
    for path in (output, flags.preview_path):
        check_regular_file(path)
    model = load_selected_run(flags, default=DEFAULT_MODEL).load_model()
    pictures = load_pictures(model, flags.style_image)
    hand = estimate_hand(model, pictures)
    logits = model.encode(pictures).logits
    categories = [] if logits is None else np.asarray(logits).argmax(axis=1).tolist()
    with atomic_write(flags.preview_path) as file:
        figure = _preview(model, pictures, hand, categories)
        figure.savefig(file, format=plotting.figure_format(str(flags.preview_path)))
        hand.save(output)
    names = " ".join(model.category_names[index] for index in categories)
    read = f", read as {names}" if names else ""
    print(f"found {len(pictures)} characters{read}; the hand is in {output}")
    print(f"to check: {flags.preview_path}")


def _preview(
    model: TrainedModel, pictures: np.ndarray, hand: Hand, categories: list[int]
) -> plotting.Figure:
    """Rows of characters as they were found, and below as the hand draws them."""
    styles = hand.z[None].repeat(len(pictures), axis=0)
    drawn = np.asarray(model.decode(styles, categories or None))
    rows = []
    for start in range(0, len(pictures), _MAX_COLUMNS):
        part = slice(start, start + _MAX_COLUMNS)
        for title, images in (("found", pictures / 255), ("in the hand", drawn)):
            images = np.asarray(images[part], np.float32)[None]
            rows.append([plotting.Panel(images=images, title=title)])
    return plotting.panel_grid(rows)


def main(args: Sequence[str] | None = None, prog: str | None = None) -> NoReturn:
    """Runs the command."""
    description = "Estimate a hand from pictures of characters, and save it."
    cli.run(run_command, EstimateHandFlags, description=description, args=args, prog=prog)

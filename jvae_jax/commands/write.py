"""``jvae write``: writes a text in a hand."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

import jax
from simple_parsing import choice, field

from jvae_jax import cli, plotting
from jvae_jax.commands._hand_flags import HandFlags, select_hand
from jvae_jax.commands._model_flags import DEFAULT_MODEL, load_selected_run
from jvae_jax.files import atomic_write
from jvae_jax.handwriting.text import write
from jvae_jax.validation import require


@dataclass(frozen=True, kw_only=True)
class WriteFlags(HandFlags):
    """Flags of the text."""

    text: str = field(positional=True, metavar="TEXT")
    r"""Text to write. A line break is one, or \n."""
    output: str = "text.png"
    """Image to write; its suffix selects the format: .png, or .svg or .pdf with outlines."""
    size: float = 64.0
    """Height of a character with its margins, in pixels; of vector formats, in 1/100 inch."""
    align: Literal["left", "center", "right"] = choice("left", "center", "right", default="left")
    """Alignment of the lines; of vertical ones, left is the top."""
    vertical: bool = False
    """Write from top to bottom, and lines from right to left."""
    transparent: bool = False
    """Leave the ground transparent instead of white."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "size", lambda size: 4 <= size <= 4096, "from 4 to 4096 pixels")
        plotting.figure_format(self.output)


def run_command(flags: WriteFlags) -> None:
    """Writes the text to the output."""
    output = Path(flags.output).expanduser()
    with atomic_write(output) as file:
        model = load_selected_run(flags, default=DEFAULT_MODEL).load_model()
        hand = select_hand(flags, model)
        writing = write(
            model,
            cli.decode_argument(flags.text).replace("\\n", "\n"),
            hand,
            key=jax.random.key(flags.seed),
            variation=flags.variation,
            align=flags.align,
            vertical=flags.vertical,
        )
        figure = plotting.writing_figure(writing, size=flags.size, transparent=flags.transparent)
        figure.savefig(file, format=plotting.figure_format(flags.output))
    print(f"{len(writing.outlines)} characters in {output}")


def main(args: Sequence[str] | None = None, prog: str | None = None) -> NoReturn:
    """Runs the command."""
    description = "Write a text in a hand."
    cli.run(run_command, WriteFlags, description=description, args=args, prog=prog)

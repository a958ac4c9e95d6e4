"""``jvae font``: makes a font of a hand."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import jax

from jvae_jax import cli
from jvae_jax.commands._hand_flags import HandFlags, select_hand
from jvae_jax.commands._model_flags import DEFAULT_MODEL, load_selected_run
from jvae_jax.files import atomic_write, file_suffix
from jvae_jax.handwriting.font import FORMATS, build_font
from jvae_jax.validation import require


@dataclass(frozen=True, kw_only=True)
class FontFlags(HandFlags):
    """Flags of the font."""

    output: str = "Handwriting.ttf"
    """Font to write: .ttf, or .woff2 for web pages."""
    family: str | None = None
    """Name of the font. By default the output's, without its suffix."""
    alternates: int = 3
    """Glyphs of each character; programs that support the feature calt take them in turn."""
    characters: str | None = None
    """Characters of classes whose names are longer, such as zero=0,one=1."""
    license: str = ""
    """Text of the licence, which is kept in the font."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "alternates", lambda count: 1 <= count <= 20, "from 1 to 20")
        if file_suffix(self.output) not in FORMATS:
            suffixes = " or ".join(f".{name}" for name in FORMATS)
            raise ValueError(f"output must end with {suffixes}, got {self.output}")
        _ = self.character_map

    @property
    def character_map(self) -> dict[str, str]:
        """Character by name of the class.

        Raises:
            ValueError: if a pair has another form, or a class has two characters.
        """
        characters: dict[str, str] = {}
        for pair in cli.decode_argument(self.characters).split(",") if self.characters else []:
            name, character = pair.strip()[:-2].strip(), pair.strip()[-1:]
            if pair.strip()[-2:-1] != "=" or not name:
                raise ValueError(f"characters must be as CLASS=CHARACTER, got {pair!r}")
            if name in characters:
                raise ValueError(f"characters maps class {name} twice, in {self.characters!r}")
            characters[name] = character
        return characters


def run_command(flags: FontFlags) -> None:
    """Writes the font to the output."""
    output = Path(flags.output).expanduser()
    with atomic_write(output) as file:
        model = load_selected_run(flags, default=DEFAULT_MODEL).load_model()
        hand = select_hand(flags, model)
        content = build_font(
            model,
            hand,
            key=jax.random.key(flags.seed),
            family=cli.decode_argument(output.stem if flags.family is None else flags.family),
            format="woff2" if output.suffix.lower() == ".woff2" else "ttf",
            alternates=flags.alternates,
            variation=flags.variation,
            characters=flags.character_map,
            license=cli.decode_argument(flags.license),
        )
        file.write(content)
    print(f"a font of {len(content):,} bytes in {output}")


def main(args: Sequence[str] | None = None, prog: str | None = None) -> NoReturn:
    """Runs the command."""
    description = "Make a font of a hand."
    cli.run(run_command, FontFlags, description=description, args=args, prog=prog)

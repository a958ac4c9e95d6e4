"""The flags that select a hand."""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from jvae_jax.commands._model_flags import ModelFlags
from jvae_jax.handwriting.hand import Hand, estimate_hand, load_hand, sample_hand
from jvae_jax.trained_model import TrainedModel
from jvae_jax.validation import require


@dataclass(frozen=True, kw_only=True)
class HandFlags(ModelFlags):
    """Flags of the hand."""

    hand: str | None = None
    """File of the hand, as `jvae hand` saves it, or of a style of the page, which doesn't vary. By
    default a hand is sampled."""
    style_image: str | None = None
    """Comma-separated image files, of a character or a sheet of them each, from which the hand is
    estimated instead."""
    seed: int = 0
    """Random seed of a sampled hand and of the variation between characters."""
    variation: float = 0.5
    """How much the style varies from character to character, relative to the hand's standard
    deviation; with 0, equal characters are the same."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "seed", lambda seed: 0 <= seed < 2**32, "from 0 to 4,294,967,295")
        require(self, "variation", lambda variation: 0 <= variation <= 5, "from 0 to 5")
        check_one_style(self)
        if self.hand == "":
            raise ValueError("hand must be the path of a file, got ''")
        if self.style_image is not None:
            picture_paths(self.style_image)


def check_one_style(flags: ModelFlags) -> None:
    """Raises ValueError if more than one flag selects the style."""
    names = ("hand", "style_image", "style_index")
    given = [name for name in names if getattr(flags, name, None) is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} both select styles; give one of them")


def picture_paths(paths: str) -> list[Path]:
    """Splits comma-separated paths.

    Raises:
        ValueError: if one is empty.
    """
    parts = [part.strip() for part in paths.split(",")]
    if "" in parts:
        raise ValueError(f"style_image must be files separated by commas, got {paths!r}")
    return [Path(part).expanduser() for part in parts]


def load_pictures(model: TrainedModel, paths: str) -> np.ndarray:
    """Loads the characters of comma-separated image files, of one or a sheet each, as uint8.

    Raises:
        ValueError: if a file can't be read or is blank.
    """
    pictures = []
    for path in picture_paths(paths):
        try:
            pictures.append(model.load_sheet(path))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return np.concatenate(pictures)


def select_hand(flags: HandFlags, model: TrainedModel) -> Hand:
    """Returns the hand that the flags select.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: see :func:`load_hand` and :func:`load_pictures`.
    """
    if flags.hand is not None:
        return load_hand(Path(flags.hand).expanduser(), model)
    if flags.style_image is not None:
        return estimate_hand(model, load_pictures(model, flags.style_image))
    return sample_hand(model, jax.random.key(flags.seed))

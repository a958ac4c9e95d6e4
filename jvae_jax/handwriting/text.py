"""Lines of text in a hand, as outlines with natural spacing."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jax import Array

from jvae_jax.handwriting.hand import Hand
from jvae_jax.handwriting.outlines import Outline, trace
from jvae_jax.trained_model import TrainedModel

Align = Literal["left", "center", "right"]
"""Alignment of lines; of vertical lines, left is the top."""

GAP = 0.12
"""Distance between the ink of neighbouring characters, in em: heights of the model's image."""
SPACE = 0.35
"""Width of a space, in em."""
BASELINE = 0.85
"""Height of the baseline of full-width characters below the top of the model's image, in em."""
_LINE = 1.1
"""Distance between lines, in em."""
_X_HEIGHT = 0.68
"""Height of x, and of other lower-case letters without ascender, relative to capitals."""
_DESCENDER = 0.3
"""Depth of g below the baseline, relative to the height of capitals."""
_SHORT, _DEEP = "acegmnopqrsuvwxyz", "gjpqy"
"""Lower-case letters without ascender, and those with a descender."""


@dataclass(frozen=True, eq=False)
class Writing:
    """Outlines of a text.

    Attributes:
        outlines: outline of each character, in em, y downwards.
        width: width of the text and its margins, in em.
        height: height of them, in em.
    """

    outlines: tuple[Outline, ...]
    width: float
    height: float


def write(
    model: TrainedModel,
    text: str,
    hand: Hand,
    *,
    key: Array,
    variation: float = 0.5,
    align: Align = "left",
    vertical: bool = False,
) -> Writing:
    """Writes a text in a hand.

    Characters are spaced by their ink. Digits, capitals and the like stand on the baseline;
    full-width characters, such as kana, keep their position in the model's images.

    Args:
        model: model of grey characters, whose classes have names of one character.
        text: text; lines are separated by line breaks.
        hand: the hand.
        key: random key of the styles of the characters.
        variation: how much the style varies from character to character, relative to the hand's
            standard deviation.
        align: alignment of lines.
        vertical: whether lines run from top to bottom, and follow each other from right to left.

    Returns:
        The outlines, with half a line around them.

    Raises:
        ValueError: if the text holds no character, the model doesn't have one, or it has no
            classes or colour images.
    """
    lines = unicodedata.normalize("NFC", text.expandtabs(4)).splitlines()
    characters = [character for line in lines for character in line if not character.isspace()]
    if not characters:
        raise ValueError("the text is empty: it holds no character to write")
    labels = _labels(model, characters)
    styles = hand.styles(len(labels), key, variation)
    glyphs = iter(glyph_outlines(model, styles, labels, characters))
    placed = []
    for line in lines:
        start, end, outlines = 0.0, 0.0, []
        for character in line:
            if character.isspace():
                start += SPACE * (2 if character == "\u3000" else 1)
                continue
            glyph = next(glyphs)
            if not glyph.contours:
                continue
            left, top, right, bottom = glyph.box
            if vertical:
                outlines.append(glyph.shifted(-(left + right) / 2, start - top))
                end = start + bottom - top
            else:
                outlines.append(glyph.shifted(start - left, 0.0))
                end = start + right - left
            start = end + GAP
        placed.append((outlines, end))
    longest = max(length for _, length in placed)
    margin = _LINE / 2
    across = (len(placed) - 1) * _LINE
    shifted = []
    for index, (outlines, length) in enumerate(placed):
        along = margin + (longest - length) * ("left", "center", "right").index(align) / 2
        position = index * _LINE
        for outline in outlines:
            if vertical:
                shifted.append(outline.shifted(2 * margin + across - position, along))
            else:
                shifted.append(outline.shifted(along, 2 * margin + position))
    length, breadth = longest + 2 * margin, across + (4 if vertical else 3) * margin
    return Writing(tuple(shifted), *((breadth, length) if vertical else (length, breadth)))


def glyph_outlines(
    model: TrainedModel, styles: np.ndarray, labels: Sequence[int], characters: Sequence[str]
) -> list[Outline]:
    """Generates characters and traces them, each on a baseline at y = 0.

    Args:
        model: model of grey characters.
        styles: z, (characters, latents).
        labels: class of each character.
        characters: the characters, which decide on the baseline.

    Returns:
        Outlines in em, the height of the model's image; x is that of the image.

    Raises:
        ValueError: if the model's images aren't grey.
    """
    height, _, channels = model.network.image_shape
    if channels != 1:
        raise ValueError("outlines are those of grey characters; this model's are coloured")
    images = np.asarray(model.decode(styles, np.asarray(labels)))
    return [
        _on_baseline(trace(image[..., 0]).scaled(1 / height), character)
        for image, character in zip(images, characters, strict=True)
    ]


def is_full_width(character: str) -> bool:
    """Whether a character is as wide as high, such as kana."""
    return unicodedata.east_asian_width(character) in "WF"


def _on_baseline(outline: Outline, character: str) -> Outline:
    """Moves an outline in em so that the character's baseline is at y = 0."""
    if not outline.contours:
        return outline
    if is_full_width(character):
        return outline.shifted(0.0, -BASELINE)
    depth = _DESCENDER if character in _DEEP else 0.0
    scale = (_X_HEIGHT if character in _SHORT else 1.0) + depth
    _, top, _, bottom = outline.box
    return outline.scaled(scale).shifted(0.0, depth * (bottom - top) - scale * bottom)


def _labels(model: TrainedModel, characters: Sequence[str]) -> list[int]:
    """Class of each character."""
    names = model.category_names
    name = model.name or "this model"
    if not names:
        raise ValueError(f"{name} has no classes, so it can't write a text")
    if missing := list(dict.fromkeys(each for each in characters if each not in names)):
        writable = [each for each in names if len(each) == 1]
        unknown = " ".join(map(_printable, missing))
        raise ValueError(
            f"{name} has no {unknown}; it writes {' '.join(writable) or 'no character'}"
        )
    return [names.index(each) for each in characters]


def _printable(character: str) -> str:
    """The character, or its code point where nothing would be seen of it."""
    is_seen = character.isprintable() and not unicodedata.category(character).startswith("M")
    return character if is_seen else f"U+{ord(character):04X}"

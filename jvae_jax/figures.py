"""Figures: arrays in, ``matplotlib`` Figure out. Nothing here saves or shows."""

from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np
from jaxtyping import Float, Int
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import FT2Font
from matplotlib.textpath import TextPath

_INCHES = 0.42
"""Side of a character on paper."""
_POINTS = 9.0
"""Size of names."""
_GAP = 0.12
"""Inches on both sides of names together."""
_SHOWN = 0.005
"""Shares from here on have their per cent written beside them."""
_UNUSUAL_STYLES = ("black", "bold", "italic", "light", "mono", "oblique", "serif", "thin")
_MOST_ROWS = 30
"""So many stand below each other; more go into blocks side by side."""


def sheet(
    images: Float[np.ndarray, "rows columns height width channels"],
    row_names: Sequence[str] | None = None,
) -> Figure:
    """A sheet of characters, edge to edge, ink dark on white, with a name before each row.

    More than 30 rows stand in blocks side by side. Names that no installed font can draw become
    code points, see :func:`font_hint`.

    Args:
        images: values in [0, 1]; 1 or 3 channels. Grey ones are inverted: printed as ink on paper.
        row_names: one for each row.

    Raises:
        ValueError: if there isn't one name for each row, or channels are neither 1 nor 3.
    """
    rows, columns, *_, channels = images.shape
    if channels not in (1, 3):
        raise ValueError(f"images must have 1 or 3 channels, got {channels}")
    if row_names is not None and len(row_names) != rows:
        raise ValueError(f"{rows} rows need as many names, got {len(row_names)}")
    names, font = _drawable(row_names or ())
    widths = [TextPath((0, 0), name, prop=font).get_extents().width for name in names]
    margin = max(widths) / 72 + _GAP if widths else 0.0
    blocks = -(-rows // _MOST_ROWS)
    per_block = -(-rows // blocks)
    block_width = margin + columns * _INCHES
    gap = _GAP if blocks > 1 else 0.0
    width, height = blocks * block_width + (blocks - 1) * gap, per_block * _INCHES
    figure = Figure(figsize=(width, height), dpi=200)
    for block in range(blocks):
        part = slice(block * per_block, (block + 1) * per_block)
        drawn = np.asarray(images[part])
        left = block * (block_width + gap) + margin
        share = len(drawn) / per_block
        axes = figure.add_axes(
            (left / width, 1 - share, columns * _INCHES / width, share), frame_on=False
        )
        _draw(axes, drawn)
        axes.set_yticks(drawn.shape[2] * (np.arange(len(names[part])) + 0.5) - 0.5, names[part])
        for label in axes.get_yticklabels():
            label.set_fontproperties(font)
    return figure


def confusion(counts: Int[np.ndarray, "classes classes"], class_names: Sequence[str]) -> Figure:
    """How often (row: the class asked for, column: the class read), as shares of each row.

    Args:
        counts: of characters; every class was asked for.
        class_names: one for each class.
    """
    names, font = _drawable(class_names)
    side = max(3.0, 0.2 * len(names))
    figure = Figure(figsize=(side, side), dpi=200, layout="constrained")
    axes = figure.add_subplot(xlabel="read", ylabel="asked for")
    shares = counts / counts.sum(axis=1, keepdims=True)
    axes.imshow(shares, cmap="Greys", vmin=0, vmax=1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(range(len(names)), names)
        for label in axis.get_ticklabels():
            label.set_fontproperties(font)
    if max(map(len, names)) > 2:
        axes.tick_params(axis="x", rotation=90)
    for row, column in zip(*np.nonzero(shares >= _SHOWN), strict=True):
        share = shares[row, column]
        axes.text(
            column,
            row,
            f"{100 * share:.0f}",
            size=5,
            color="white" if share > 0.5 else "black",
            ha="center",
            va="center",
        )
    return figure


def font_hint(names: Sequence[str]) -> str | None:
    """What to install so that figures can show these names, or None if they can."""
    characters = frozenset("".join(names))
    if _font_with(characters) is not None:
        return None
    example = next(c for c in sorted(characters) if _font_with(frozenset(c)) is None)
    return (
        f"no installed font has {example} and the other names' characters, so figures show code "
        "points; install one, such as Noto Sans CJK (Debian, Ubuntu and Colab: "
        "apt install fonts-noto-cjk)"
    )


def _draw(axes: Axes, images: np.ndarray) -> None:
    rows, columns, height, width, channels = images.shape
    tiled = images.swapaxes(1, 2).reshape(rows * height, columns * width, channels)
    if channels == 1:
        axes.imshow(tiled[..., 0], cmap="gray_r", vmin=0, vmax=1, interpolation="none")
    else:
        axes.imshow(tiled, vmin=0, vmax=1, interpolation="none")
    axes.set_xticks([])
    axes.tick_params(length=0, pad=3)


def _drawable(names: Sequence[str]) -> tuple[list[str], FontProperties]:
    """The names, or code points where no font has all of them, and a font that has these."""
    path = _font_with(frozenset("".join(names)))
    if path is None:
        path = _own_font()
        names = [
            name if _has(path, name) else " ".join(f"U+{ord(character):04X}" for character in name)
            for name in names
        ]
    return list(names), FontProperties(fname=path, size=_POINTS)


@cache
def _font_with(characters: frozenset[str]) -> str | None:
    """The file of a font that has all the characters: matplotlib's own, if it does."""
    # findSystemFonts sees what was installed since matplotlib listed fonts for itself.
    others = sorted(
        font_manager.findSystemFonts(),
        key=lambda path: (any(style in path.lower() for style in _UNUSUAL_STYLES), path),
    )
    return next((path for path in (_own_font(), *others) if _has(path, characters)), None)


def _own_font() -> str:
    return font_manager.findfont(FontProperties())


def _has(path: str, characters: Iterable[str]) -> bool:
    try:
        drawn = FT2Font(path).get_charmap()
    except (OSError, RuntimeError):
        return False  # not a font that matplotlib can draw
    return all(ord(character) in drawn for character in characters)

"""Figures: arrays in, ``matplotlib`` Figure out. Nothing here saves or shows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice

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
_TITLE = 0.25
"""Inches for a title."""
_SHOWN = 0.005
"""Shares from here on have their per cent written beside them."""
_UNUSUAL_STYLES = ("black", "bold", "italic", "light", "mono", "oblique", "serif", "thin")
_MOST_ROWS = 30
"""So many stand below each other; more go into blocks side by side."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Rows of characters, edge to edge, in a figure.

    Attributes:
        images: values in [0, 1]; 1 or 3 channels. Grey ones are inverted: printed as ink on paper.
        title: stands above.
        row_names: one for each row, or none.

    Raises:
        ValueError: if there isn't one name for each row, or channels are neither 1 nor 3.
    """

    images: Float[np.ndarray, "rows columns height width channels"]
    title: str = ""
    row_names: Sequence[str] = ()

    def __post_init__(self) -> None:
        rows, *_, channels = self.images.shape
        if channels not in (1, 3):
            raise ValueError(f"images must have 1 or 3 channels, got {channels}")
        if self.row_names and len(self.row_names) != rows:
            raise ValueError(f"{rows} rows need as many names, got {len(self.row_names)}")


def sheet(
    images: Float[np.ndarray, "rows columns height width channels"],
    row_names: Sequence[str] | None = None,
) -> Figure:
    """A sheet of characters, edge to edge, ink dark on white, with a name before each row.

    More than 30 rows stand in blocks side by side. Names that no installed font can draw become
    code points, see :func:`font_hint`.

    Args and errors as :class:`Panel`'s.
    """
    whole = Panel(images=images, row_names=row_names or ())
    per_block = -(-len(images) // -(-len(images) // _MOST_ROWS))
    parts = [slice(start, start + per_block) for start in range(0, len(images), per_block)]
    return panels([[Panel(images=images[part], row_names=whole.row_names[part]) for part in parts]])


def panels(grid: Sequence[Sequence[Panel]]) -> Figure:
    """Panels in rows and columns. Names that no installed font can draw become code points.

    Args:
        grid: rows of as many panels each.
    """
    names, font = _drawable([name for row in grid for panel in row for name in panel.row_names])
    every_name = iter(names)
    widths = [TextPath((0, 0), name, prop=font).get_extents().width for name in names]
    margin = max(widths) / 72 + _GAP if widths else 0.0
    titled = _TITLE if any(panel.title for row in grid for panel in row) else 0.0
    column_widths = [
        max(
            panel.images.shape[1] * _INCHES + (margin if panel.row_names else 0) for panel in column
        )
        for column in zip(*grid, strict=True)
    ]
    row_heights = [max(len(panel.images) for panel in row) * _INCHES + titled for row in grid]
    width = sum(column_widths) + _GAP * (len(column_widths) - 1)
    height = sum(row_heights) + _GAP * (len(row_heights) - 1)
    figure = Figure(figsize=(width, height), dpi=200)
    top = 0.0
    for row, row_height in zip(grid, row_heights, strict=True):
        left = 0.0
        for panel, column_width in zip(row, column_widths, strict=True):
            rows, columns = panel.images.shape[:2]
            start = left + (margin if panel.row_names else 0)
            bottom = height - top - titled - rows * _INCHES
            axes = figure.add_axes(
                (
                    start / width,
                    bottom / height,
                    columns * _INCHES / width,
                    rows * _INCHES / height,
                ),
                frame_on=False,
            )
            _draw(axes, panel.images)
            if panel.title:
                axes.set_title(panel.title, size=_POINTS, pad=4)
            shown = list(islice(every_name, len(panel.row_names)))
            axes.set_yticks(panel.images.shape[2] * (np.arange(len(shown)) + 0.5) - 0.5, shown)
            for label in axes.get_yticklabels():
                label.set_fontproperties(font)
            left += column_width + _GAP
        top += row_height + _GAP
    return figure


def curves(
    charts: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    x_label: str,
    *,
    logarithmic: bool = False,
) -> Figure:
    """Charts side by side over one quantity.

    Args:
        charts: by what the vertical axis shows: named series of x and y, all names in the first.
        x_label: what the horizontal axes show.
        logarithmic: whether they are.
    """
    figure = Figure(figsize=(2.6 * len(charts), 2.3), dpi=200, layout="constrained")
    for axes, (y_label, series) in zip(
        figure.subplots(1, len(charts)), charts.items(), strict=True
    ):
        for (name, (x, y)), style in zip(series.items(), ("o-", "s--", "^:", "D-."), strict=False):
            axes.plot(x, y, style, color="black", markersize=4, linewidth=1, label=name)
        axes.set_title(y_label, size=_POINTS)
        axes.set_xlabel(x_label, size=_POINTS)
        if logarithmic:
            axes.set_xscale("log")
        else:
            axes.set_xticks(sorted({x for places, _ in series.values() for x in places}))
        axes.tick_params(labelsize=_POINTS - 2)
        axes.spines[["top", "right"]].set_visible(False)
    lines = figure.axes[0].get_lines()
    figure.legend(
        loc="outside lower center",
        handles=lines,
        ncols=len(lines),
        fontsize=_POINTS - 2,
        frameon=False,
    )
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

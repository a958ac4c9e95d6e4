"""Functions of arrays that return ``matplotlib`` figures, without saving or showing them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice

import numpy as np
from jax import Array
from jaxtyping import Float, Int
from matplotlib import font_manager
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import FT2Font
from matplotlib.patches import PathPatch
from matplotlib.path import Path as BezierPath
from matplotlib.textpath import TextPath
from matplotlib.ticker import LogLocator, NullLocator

from jvae_jax.files import file_suffix
from jvae_jax.handwriting.text import Writing
from jvae_jax.trained_model import TrainedModel

FORMATS = tuple(sorted(FigureCanvasBase.get_supported_filetypes().keys() - {"pgf"}))
"""Formats in which figures can be saved; pgf can't contain images."""

_CELL_INCHES = 0.42
"""Side of a character."""
_FONT_POINTS = 9.0
"""Font size of names and titles."""
_GAP_INCHES = 0.12
"""Gap between panels, and total padding around row names."""
_TITLE_INCHES = 0.25
"""Height reserved for titles."""
_MIN_ANNOTATED_FRACTION = 0.005
"""Smallest fraction of a confusion matrix that is annotated with its percentage."""
_UNUSUAL_STYLES = ("black", "bold", "italic", "light", "mono", "oblique", "serif", "thin")
"""Styles in the file names of fonts that are tried last."""
_WRITING_DPI = 100
_MAX_PIXELS = 200_000_000
"""Of a text; they take four bytes each."""
_MAX_ROWS = 30
"""Maximum number of rows of a block; longer grids are split into blocks side by side."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Grid of characters, without gaps, as one part of a figure.

    Attributes:
        images: values in [0, 1] with 1 or 3 channels, (rows, columns, height, width, channels).
            Greyscale images are inverted, so that ink is dark on white.
        title: title above the grid.
        row_names: names to the left of the rows, (rows,), or an empty sequence.

    Raises:
        ValueError: if the number of channels isn't 1 or 3, or that of names differs from the rows'.
    """

    images: Float[np.ndarray, "rows columns height width channels"]
    title: str = ""
    row_names: Sequence[str] = ()

    def __post_init__(self) -> None:
        rows, *_, channels = self.images.shape
        if channels not in (1, 3):
            raise ValueError(f"images must have 1 or 3 channels, got {channels}")
        if self.row_names and len(self.row_names) != rows:
            raise ValueError(f"expected {rows} row names, one per row, got {len(self.row_names)}")


def figure_format(output: str) -> str:
    """Returns the format of a figure's file by its suffix; png if it has none.

    Raises:
        ValueError: if it isn't the path of a file, or the format isn't supported.
    """
    suffix = file_suffix(output)
    if suffix and suffix not in FORMATS:
        raise ValueError(
            f"output {output}: {suffix!r} is not supported; there are {', '.join(FORMATS)}"
        )
    return suffix or "png"


def image_grid(
    images: Float[np.ndarray, "rows columns height width channels"],
    row_names: Sequence[str] | None = None,
) -> Figure:
    """Plots a grid of characters, without gaps.

    More than 30 rows are split into blocks side by side. Names that no installed font supports are
    replaced by code points, see :func:`font_hint`.

    Args:
        images: values in [0, 1] with 1 or 3 channels, (rows, columns, height, width, channels).
            Greyscale images are inverted, so that ink is dark on white.
        row_names: names to the left of the rows, (rows,), or None.

    Returns:
        The figure.

    Raises:
        ValueError: if the number of channels isn't 1 or 3, or that of names differs from the rows'.
    """
    panel = Panel(images=images, row_names=row_names or ())
    rows_per_block = -(-len(images) // -(-len(images) // _MAX_ROWS))
    starts = range(0, len(images), rows_per_block)
    blocks = [slice(start, start + rows_per_block) for start in starts]
    return panel_grid(
        [[Panel(images=images[block], row_names=panel.row_names[block]) for block in blocks]]
    )


def sample_grid(model: TrainedModel, key: Array, columns: int = 10) -> Figure:
    """Plots generated characters: rows fix the class, columns fix the style.

    Args:
        model: the model; without classes, there are ten rows.
        key: random key of the styles.
        columns: number of styles.
    """
    images = model.sample(key=key, rows=10, columns=columns)
    return image_grid(np.asarray(images), model.category_names or None)


def writing_figure(writing: Writing, *, size: float = 64.0, transparent: bool = False) -> Figure:
    """Plots a text as filled outlines, which vector formats keep as such.

    Args:
        writing: the text.
        size: height of the model's image, an em, in pixels of the figure.
        transparent: whether the ground is transparent instead of white.

    Returns:
        A figure without margins of its own.

    Raises:
        ValueError: if the text is too large at this size.
    """
    pixels = writing.width * writing.height * size**2
    if pixels > _MAX_PIXELS:
        raise ValueError(
            f"the text has {pixels:,.0f} pixels, at most {_MAX_PIXELS:,} are supported"
        )
    inches = size / _WRITING_DPI
    figure = Figure(figsize=(writing.width * inches, writing.height * inches), dpi=_WRITING_DPI)
    figure.patch.set_alpha(0 if transparent else 1)
    axes = figure.add_axes((0, 0, 1, 1), frame_on=False)
    axes.set(xlim=(0, writing.width), ylim=(writing.height, 0), xticks=[], yticks=[])
    for outline in writing.outlines:
        points, codes = [], []
        for contour in outline.contours:
            points += [contour[0, :1], contour[:, 1:].reshape(-1, 2), contour[0, :1]]
            codes += [
                BezierPath.MOVETO,
                *[BezierPath.CURVE4] * (3 * len(contour)),
                BezierPath.CLOSEPOLY,
            ]
        path = BezierPath(np.concatenate(points), codes)
        axes.add_patch(PathPatch(path, facecolor="black", linewidth=0))
    return figure


def panel_grid(grid: Sequence[Sequence[Panel]]) -> Figure:
    """Plots panels in rows and columns.

    Names that no installed font supports are replaced by code points, see :func:`font_hint`.

    Args:
        grid: rows of panels, all of the same length.

    Returns:
        The figure.
    """
    names, font = _supported_names(
        [name for row in grid for panel in row for name in panel.row_names]
    )
    remaining_names = iter(names)
    widths = [TextPath((0, 0), name, prop=font).get_extents().width for name in names]
    margin = max(widths) / 72 + _GAP_INCHES if widths else 0.0
    title_height = _TITLE_INCHES if any(panel.title for row in grid for panel in row) else 0.0
    column_widths = [
        max(_panel_width(panel) + (margin if panel.row_names else 0) for panel in column)
        for column in zip(*grid, strict=True)
    ]
    row_heights = [
        max(len(panel.images) for panel in row) * _CELL_INCHES + title_height for row in grid
    ]
    width = sum(column_widths) + _GAP_INCHES * (len(column_widths) - 1)
    height = sum(row_heights) + _GAP_INCHES * (len(row_heights) - 1)
    figure = Figure(figsize=(width, height), dpi=200)
    top = 0.0
    for row, row_height in zip(grid, row_heights, strict=True):
        left = 0.0
        for panel, column_width in zip(row, column_widths, strict=True):
            rows, columns = panel.images.shape[:2]
            axes_left = left + (margin if panel.row_names else 0)
            axes_left += (_panel_width(panel) - columns * _CELL_INCHES) / 2
            bottom = height - top - title_height - rows * _CELL_INCHES
            axes = figure.add_axes(
                (
                    axes_left / width,
                    bottom / height,
                    columns * _CELL_INCHES / width,
                    rows * _CELL_INCHES / height,
                ),
                frame_on=False,
            )
            _show_grid(axes, panel.images)
            if panel.title:
                axes.set_title(panel.title, size=_FONT_POINTS, pad=4)
            row_names = list(islice(remaining_names, len(panel.row_names)))
            axes.set_yticks(
                panel.images.shape[2] * (np.arange(len(row_names)) + 0.5) - 0.5, row_names
            )
            for label in axes.get_yticklabels():
                label.set_fontproperties(font)
            left += column_width + _GAP_INCHES
        top += row_height + _GAP_INCHES
    return figure


def _panel_width(panel: Panel) -> float:
    """Width in inches of the images, or of the title where that is wider."""
    width = panel.images.shape[1] * _CELL_INCHES
    if not panel.title:
        return width
    title = TextPath((0, 0), panel.title, prop=FontProperties(size=_FONT_POINTS))
    return max(width, title.get_extents().width / 72)


def line_charts(
    charts: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    x_label: str,
    *,
    logarithmic: bool = False,
    logarithmic_y: Collection[str] = (),
    x_ticks: Sequence[float] | None = None,
    columns: int | None = None,
    markers: bool = True,
) -> Figure:
    """Plots line charts side by side over the same quantity.

    Args:
        charts: maps each y label to series, which map a name to x and y values, (points,) each. The
            legend lists the series of the chart that has most. Several y values of one x are
            plotted as their mean, with a bar from the lowest to the highest.
        x_label: label of the x axes.
        logarithmic: whether the x axes are logarithmic.
        logarithmic_y: y labels of the charts whose y axes are logarithmic.
        x_ticks: ticks of the x axes; by default all x values, or matplotlib's choice without
            markers or if they are logarithmic.
        columns: charts in a row; by default all.
        markers: whether points are marked, which suits few of them.

    Returns:
        The figure.

    Raises:
        ValueError: if a chart has more series than there are styles of lines, 9.
    """
    columns = columns or len(charts)
    rows = -(-len(charts) // columns)
    styles = ("o-", "s--", "^:", "D-.", "v-", "P--", "X:", "*-.", "p-")
    if (most := max(map(len, charts.values()))) > len(styles):
        raise ValueError(f"a chart must have at most {len(styles)} series, got {most}")
    figure = Figure(figsize=(2.6 * columns, 2.0 * rows + 0.3), dpi=200, layout="constrained")
    grid = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for axes in grid[len(charts) :]:
        axes.set_axis_off()
    for axes, (y_label, series) in zip(grid, charts.items(), strict=False):
        for (name, (x, y)), style in zip(series.items(), styles, strict=False):
            by_x: dict[float, list[float]] = {}
            for each, value in zip(x, y, strict=True):
                by_x.setdefault(each, []).append(value)
            axes.plot(
                list(by_x),
                [np.mean(values) for values in by_x.values()],
                style if markers else style[1:],
                color="black",
                markersize=4,
                linewidth=1,
                label=name,
            )
            bars = {each: values for each, values in by_x.items() if len(values) > 1}
            lowest, highest = ([end(bar) for bar in bars.values()] for end in (min, max))
            axes.vlines(list(bars), lowest, highest, color="black", linewidth=0.5)
        axes.set_title(y_label, size=_FONT_POINTS)
        axes.set_xlabel(x_label, size=_FONT_POINTS)
        if logarithmic:
            axes.set_xscale("log")
        if x_ticks is not None:
            axes.set_xticks(x_ticks, [f"{tick:,g}" for tick in x_ticks])
            axes.xaxis.set_minor_locator(NullLocator())
        elif markers and not logarithmic:
            axes.set_xticks(sorted({x for values, _ in series.values() for x in values}))
        if y_label in logarithmic_y:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter("{x:g}")
        axes.tick_params(labelsize=_FONT_POINTS - 2)
        axes.spines[["top", "right"]].set_visible(False)
    _add_legend(figure, max((axes.get_lines() for axes in figure.axes), key=len))
    return figure


def _add_legend(figure: Figure, lines: Sequence[Artist]) -> None:
    """Adds a legend below the charts, in as many columns as fit into the figure's width."""
    for columns in range(len(lines), 0, -1):
        legend = figure.legend(
            loc="outside lower center",
            handles=lines,
            ncols=columns,
            fontsize=_FONT_POINTS - 2,
            frameon=False,
        )
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            figure.set_figheight(figure.get_figheight() + 0.15 * (-(-len(lines) // columns) - 1))
            return
        legend.remove()


def heat_maps(
    maps: Mapping[str, tuple[Float[np.ndarray, "rows columns"], Sequence[str]]],
    row_names: Sequence[str],
    *,
    x_label: str,
    label: str,
    columns: int | None = None,
) -> Figure:
    """Plots heat maps with common rows and a common colour scale, from 0.

    Args:
        maps: maps each title to values, (rows, columns), and the names of the columns, (columns,).
        row_names: names of the rows of each map, (rows,).
        x_label: label of the x axes.
        label: label of the colour scale.
        columns: heat maps in a row; by default all.

    Returns:
        The figure.
    """
    columns = columns or len(maps)
    rows = -(-len(maps) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.0 * rows), dpi=200, layout="constrained")
    grid = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for axes in grid[len(maps) :]:
        axes.set_axis_off()
    highest = max(values.max() for values, _ in maps.values())
    for index, (axes, (title, (values, names))) in enumerate(zip(grid, maps.items(), strict=False)):
        axes.imshow(values, cmap="Greys", vmin=0, vmax=highest, aspect="auto")
        axes.set_title(title, size=_FONT_POINTS)
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(row_names)), [] if index % columns else row_names)
        axes.tick_params(labelsize=_FONT_POINTS - 2, length=0)
    figure.supxlabel(x_label, size=_FONT_POINTS)
    scale = figure.colorbar(grid[0].images[0], ax=grid)
    scale.set_label(label, size=_FONT_POINTS)
    scale.ax.tick_params(labelsize=_FONT_POINTS - 2)
    return figure


def confusion_matrix(
    counts: Int[np.ndarray, "classes classes"], class_names: Sequence[str]
) -> Figure:
    """Plots a confusion matrix of requested and predicted classes, normalised by row.

    Fractions from 0.5 % are annotated with their percentage.

    Args:
        counts: number of characters of each requested (row) and predicted (column) class,
            (classes, classes). No row may sum to 0.
        class_names: names of the classes, (classes,).

    Returns:
        The figure.
    """
    names, font = _supported_names(class_names)
    side = max(3.0, 0.2 * len(names))
    figure = Figure(figsize=(side, side), dpi=200, layout="constrained")
    axes = figure.add_subplot(xlabel="predicted class", ylabel="requested class")
    fractions = counts / counts.sum(axis=1, keepdims=True)
    axes.imshow(fractions, cmap="Greys", vmin=0, vmax=1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(range(len(names)), names)
        for label in axis.get_ticklabels():
            label.set_fontproperties(font)
    if max(map(len, names)) > 2:
        axes.tick_params(axis="x", rotation=90)
    for row, column in zip(*np.nonzero(fractions >= _MIN_ANNOTATED_FRACTION), strict=True):
        fraction = fractions[row, column]
        axes.text(
            column,
            row,
            f"{100 * fraction:.0f}",
            size=5,
            color="white" if fraction > 0.5 else "black",
            ha="center",
            va="center",
        )
    return figure


def font_hint(names: Sequence[str]) -> str | None:
    """Suggests a font to install if figures can't show all names.

    Args:
        names: names of rows or classes.

    Returns:
        A message, or None if an installed font supports all names.
    """
    characters = frozenset("".join(names))
    if _font_with(characters) is not None:
        return None
    missing = [c for c in sorted(characters) if _font_with(frozenset(c)) is None]
    # Several fonts may support the characters although no single one does.
    detail = f" (missing character: {missing[0]})" if missing else ""
    return (
        f"no installed font supports the names{detail}, so figures show code points; install a "
        "font such as Noto Sans CJK (Debian, Ubuntu and Colab: apt install fonts-noto-cjk)"
    )


def _show_grid(axes: Axes, images: np.ndarray) -> None:
    rows, columns, height, width, channels = images.shape
    tiled = images.swapaxes(1, 2).reshape(rows * height, columns * width, channels)
    if channels == 1:
        axes.imshow(tiled[..., 0], cmap="gray_r", vmin=0, vmax=1, interpolation="none")
    else:
        axes.imshow(tiled, vmin=0, vmax=1, interpolation="none")
    axes.set_xticks([])
    axes.tick_params(length=0, pad=3)


def _supported_names(names: Sequence[str]) -> tuple[list[str], FontProperties]:
    """Returns the names and a font that supports them; code points replace other characters."""
    path = _font_with(frozenset("".join(names)))
    if path is None:
        path = _default_font()
        names = [
            "".join(
                character if _supports(path, character) else f"U+{ord(character):04X}"
                for character in name
            )
            for name in names
        ]
    return list(names), FontProperties(fname=path, size=_FONT_POINTS)


@cache
def _font_with(characters: frozenset[str]) -> str | None:
    """Returns the file of a font that supports all characters, preferably matplotlib's default."""
    # Unlike matplotlib's cached font list, findSystemFonts includes newly installed fonts.
    others = sorted(
        font_manager.findSystemFonts(),
        key=lambda path: (any(style in path.lower() for style in _UNUSUAL_STYLES), path),
    )
    return next((path for path in (_default_font(), *others) if _supports(path, characters)), None)


def _default_font() -> str:
    return font_manager.findfont(FontProperties())


def _supports(path: str, characters: Iterable[str]) -> bool:
    try:
        charmap = FT2Font(path).get_charmap()
    except (OSError, RuntimeError):
        return False  # matplotlib can't load the font
    return all(ord(character) in charmap for character in characters)

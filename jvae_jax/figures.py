"""Figures: arrays in, ``matplotlib`` Figure out. Nothing here saves or shows."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

_INCHES = 0.42
"""Side of a character on paper."""


def sheet(
    images: Float[np.ndarray, "rows columns height width channels"],
    row_names: Sequence[str] | None = None,
) -> Figure:
    """A sheet of characters, edge to edge, ink dark on white, with a name before each row.

    Args:
        images: values in [0, 1]; 1 or 3 channels. Grey ones are inverted: printed as ink on paper.
        row_names: one for each row.

    Raises:
        ValueError: if there isn't one name for each row, or channels are neither 1 nor 3.
    """
    rows, columns, height, width, channels = images.shape
    if channels not in (1, 3):
        raise ValueError(f"images must have 1 or 3 channels, got {channels}")
    if row_names is not None and len(row_names) != rows:
        raise ValueError(f"{rows} rows need as many names, got {len(row_names)}")
    tiled = np.asarray(images).swapaxes(1, 2).reshape(rows * height, columns * width, channels)
    margin = 0.3 if row_names is not None else 0.0
    size = (columns * _INCHES + margin, rows * _INCHES)
    figure = Figure(figsize=size, dpi=200)
    axes = figure.add_axes((margin / size[0], 0, 1 - margin / size[0], 1))
    if channels == 1:
        axes.imshow(tiled[..., 0], cmap="gray_r", vmin=0, vmax=1, interpolation="none")
    else:
        axes.imshow(tiled, vmin=0, vmax=1, interpolation="none")
    axes.set_frame_on(False)
    axes.set_xticks([])
    axes.set_yticks([])
    if row_names is not None:
        axes.set_yticks(height * (np.arange(rows) + 0.5) - 0.5, row_names)
        axes.tick_params(length=0, pad=3, labelsize=9)
    return figure

"""Animation frames of characters, as Pillow images."""

import math

import numpy as np
from jaxtyping import Float
from PIL import Image


def animation_frames(
    images: Float[np.ndarray, "steps characters height width channels"],
    *,
    columns: int | None = None,
    max_width: int = 640,
    max_cell_width: int = 64,
) -> list[Image.Image]:
    """Tiles the characters of each step into one frame, without gaps.

    Args:
        images: values in [0, 1] with 1 or 3 channels, (steps, characters, height, width, channels).
            Greyscale images are inverted, so that ink is dark on white.
        columns: characters per row. None places up to 10 in one row, more in a grid with an aspect
            ratio of about 1.6.
        max_width: maximum width of a frame, in pixels.
        max_cell_width: maximum width of a character, in pixels.

    Returns:
        One image per step.
    """
    steps, characters, height, width, channels = images.shape
    default = characters if characters <= 10 else math.ceil(math.sqrt(1.6 * characters))
    columns = int(columns or default)
    rows = math.ceil(characters / columns)
    missing = rows * columns - characters
    cells = 1 - images if channels == 1 else images
    cells = np.pad(cells, [(0, 0), (0, missing), *[(0, 0)] * 3], constant_values=1)
    grid = cells.reshape(steps, rows, columns, height, width, channels).swapaxes(2, 3)
    grid = grid.reshape(steps, rows * height, columns * width, channels)
    pixels = (255 * grid).round().astype(np.uint8)
    cell_width = min(max_cell_width, max_width // columns)
    size = (columns * cell_width, round(rows * cell_width * height / width))
    return [
        Image.fromarray(frame[..., 0] if channels == 1 else frame).resize(
            size, Image.Resampling.BICUBIC
        )
        for frame in pixels
    ]

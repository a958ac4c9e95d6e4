"""Characters that change: frames of an animation, as Pillow images."""

import math

import numpy as np
from jaxtyping import Float
from PIL import Image


def frames(
    images: Float[np.ndarray, "steps characters height width channels"],
    *,
    columns: int | None = None,
    width: int = 640,
    largest: int = 64,
) -> list[Image.Image]:
    """A frame for each step, of characters edge to edge.

    Args:
        images: values in [0, 1]; 1 or 3 channels. Grey ones are inverted: shown as ink on paper.
        columns: characters in a line; default: up to 10 in one, more as a screen is shaped.
        width: of a frame, in pixels, at most.
        largest: the width of a character, in pixels, at most.
    """
    steps, characters, height, breadth, channels = images.shape
    across = characters if characters <= 10 else math.ceil(math.sqrt(1.6 * characters))
    columns = int(columns or across)
    rows = math.ceil(characters / columns)
    missing = rows * columns - characters
    shown = 1 - images if channels == 1 else images
    shown = np.pad(shown, [(0, 0), (0, missing), *[(0, 0)] * 3], constant_values=1)
    grid = shown.reshape(steps, rows, columns, height, breadth, channels).swapaxes(2, 3)
    grid = grid.reshape(steps, rows * height, columns * breadth, channels)
    pixels = (255 * grid).round().astype(np.uint8)
    side = min(largest, width // columns)
    size = (columns * side, round(rows * side * height / breadth))
    return [
        Image.fromarray(frame[..., 0] if channels == 1 else frame).resize(
            size, Image.Resampling.BICUBIC
        )
        for frame in pixels
    ]

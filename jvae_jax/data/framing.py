"""Scale, position and contrast of characters: estimated from images, and applied to a photo.

A photo or drawing of a character differs from the training images in size, place, polarity and
contrast. :func:`frame_image` maps it to the framing of the training images.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from jvae_jax.data.images import decode_image, normalize_polarity
from jvae_jax.types import Pixels
from jvae_jax.validation import as_pixels

_WORKING_SIZE = 512
"""Height and width, in pixels, at which ink is detected."""
_MIN_CONTRAST = 24
"""Differences in brightness from the background up to this, of 255, are noise."""


class Framing(NamedTuple):
    """Scale, position and contrast of the ink on an image.

    Attributes:
        extent: longer side of the ink's bounding box, as a fraction of the longer image side.
        row, column: centre of mass of the ink, as fractions of image height and width.
        background: brightness of the background, in 0 to 255.
        ink: brightness of the ink, in 0 to 255.
    """

    extent: float
    row: float
    column: float
    background: float
    ink: float


def estimate_framing(images: Pixels) -> Framing:
    """Estimates the framing of a dataset or of generated images: medians over the images.

    Args:
        images: uint8, (batch, height, width, channels).

    Raises:
        ValueError: if the images aren't uint8, or none contains ink.
    """
    framings = []
    images = as_pixels(images)
    for image in images:
        mask, background = _segment_ink(image)
        if mask.any():
            framings.append(_measure(image, mask, background))
    if not framings:
        raise ValueError(f"none of {len(images)} images contains ink")
    extent, row, column, background, ink = np.median(framings, axis=0).tolist()
    return Framing(extent, row, column, background, ink)


def frame_image(
    file: Path | bytes, framing: Framing, image_shape: tuple[int, int, int]
) -> UInt8[np.ndarray, "1 height width channels"]:
    """Scales, shifts and adjusts the contrast of an image of one character to match a framing.

    The polarity is normalized first. Three-channel images are only padded to a square and resized,
    as in :mod:`jvae_jax.data.image_folder`.

    Args:
        file: path or content of an image file, in any format that Pillow reads.
        framing: framing of the model's training images.
        image_shape: height, width and channels of the training images.

    Raises:
        ValueError: if the file can't be decoded, or the image contains no ink.
    """
    size, _, channels = image_shape
    if channels == 3:
        return np.broadcast_to(decode_image(file, size), (1, *image_shape))
    image = normalize_polarity(decode_image(file, _WORKING_SIZE, grey=True))
    mask, background = _segment_ink(image)
    if not mask.any():
        raise ValueError("nothing is drawn on it: no ink stands out from the background")
    measured = _measure(image, mask, background)
    # The square crop of the image that becomes the result; it may extend beyond the image.
    side = _WORKING_SIZE * measured.extent / framing.extent
    top = _WORKING_SIZE * measured.row - side * framing.row
    left = _WORKING_SIZE * measured.column - side * framing.column
    margin = max(0, *(int(np.ceil(overhang)) for overhang in _overhangs(top, left, side)))
    padded = np.pad(image[..., 0], margin, constant_values=round(background))
    box = (left + margin, top + margin, left + margin + side, top + margin + side)
    resized = Image.fromarray(padded).resize((size, size), Image.Resampling.BILINEAR, box=box)
    gain = (framing.ink - framing.background) / (measured.ink - measured.background)
    levels = framing.background + (np.asarray(resized, np.float32) - measured.background) * gain
    return levels.clip(0, 255).round().astype(np.uint8)[None, ..., None]


def _overhangs(top: float, left: float, side: float) -> tuple[float, float, float, float]:
    """Distances by which a square crop exceeds the image at the top, left, bottom and right."""
    return -top, -left, top + side - _WORKING_SIZE, left + side - _WORKING_SIZE


def _segment_ink(
    image: UInt8[np.ndarray, "height width channels"],
) -> tuple[Bool[np.ndarray, "height width"], float]:
    """Thresholds the difference from the background at half of its maximum.

    Returns:
        The mask of ink, and the brightness of the background: the median of the border.
    """
    pixels = image.astype(np.float32).mean(axis=-1)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    background = float(np.median(border))
    difference = np.abs(pixels - background)
    return difference > max(difference.max() / 2, _MIN_CONTRAST), background


def _measure(
    image: UInt8[np.ndarray, "height width channels"],
    mask: Bool[np.ndarray, "height width"],
    background: float,
) -> Framing:
    side = max(mask.shape)
    rows, columns = np.nonzero(mask)
    extent = (max(np.ptp(rows), np.ptp(columns)) + 1) / side
    row, column = (rows.mean() + 0.5) / mask.shape[0], (columns.mean() + 0.5) / mask.shape[1]
    ink = float(np.percentile(image.mean(axis=-1)[mask], 90))
    return Framing(float(extent), float(row), float(column), background, ink)

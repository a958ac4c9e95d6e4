"""Any picture of a character, made to look like those that a model was trained on."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from jvae_jax.data import images
from jvae_jax.generation.characters import decode
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.types import Pixels, Variables

_WORKING_SIDE = 512
"""Pixels at which ink is looked for."""
_CHARACTERS = 200
"""So many tell how a model frames what it draws."""
_FAINTEST = 24
"""Differences from the ground below this, of 255, are no ink."""


class Frame(NamedTuple):
    """Where ink is on images, and how bright.

    Attributes:
        extent: the longer side of its bounding box, as a share of the image's.
        row, column: its centre of mass, as shares of the image's sides.
        ground: brightness of what is around it, in 0 to 255.
        ink: its own brightness.
    """

    extent: float
    row: float
    column: float
    ground: float
    ink: float


def frame_of(images: Pixels) -> Frame:
    """How most of a model's characters, or a data set's, are framed: the medians.

    Raises:
        ValueError: if there is no ink on any.
    """
    frames = []
    for image in images:
        mask, ground = _ink(image)
        if mask.any():
            frames.append(_frame(image, mask, ground))
    if not frames:
        raise ValueError(f"none of {len(images)} images that it is to look like shows anything")
    extent, row, column, ground, ink = np.median(frames, axis=0).tolist()
    return Frame(extent, row, column, ground, ink)


def frame_of_characters(model: Autoencoder, variables: Variables) -> Frame:
    """How a model frames what it draws, which is how its training data are framed.

    Raises:
        ValueError: if it draws nothing.
    """
    z = jax.random.normal(jax.random.key(0), (_CHARACTERS, model.latents))
    labels = jnp.arange(_CHARACTERS) % model.classes if model.classes else None
    images = np.asarray(decode(model, variables, z, labels))
    return frame_of((255 * images).round().astype(np.uint8))


def framed(
    file: Path | bytes, frame: Frame, image_shape: tuple[int, int, int]
) -> UInt8[np.ndarray, "1 height width channels"]:
    """A picture of one character, as bright, as large and in the same place as a frame's.

    Ink that is darker than its ground is inverted first. Where images have three channels, the
    picture is only padded to a square and resized, as a folder's pictures are for training.

    Args:
        file: where it lies, or what it holds, in any format that Pillow reads.
        frame: of the images that the model knows.
        image_shape: of these images.

    Raises:
        ValueError: if it can't be read, or nothing is drawn on it.
    """
    size, _, channels = image_shape
    if channels == 3:
        return np.broadcast_to(images.decode(file, size), (1, *image_shape))
    image = images.ink_bright(images.decode(file, _WORKING_SIDE, grey=True))
    mask, ground = _ink(image)
    if not mask.any():
        raise ValueError("nothing is drawn on it: it is of one brightness all over")
    own = _frame(image, mask, ground)
    # The part of the picture that becomes the whole image, with margins wherever it sticks out.
    side = _WORKING_SIDE * own.extent / frame.extent
    top = _WORKING_SIDE * own.row - side * frame.row
    left = _WORKING_SIDE * own.column - side * frame.column
    margin = max(0, *(int(np.ceil(over)) for over in _overhangs(top, left, side)))
    padded = np.pad(image[..., 0], margin, constant_values=round(ground))
    box = (left + margin, top + margin, left + margin + side, top + margin + side)
    resized = Image.fromarray(padded).resize((size, size), Image.Resampling.BILINEAR, box=box)
    contrast = (frame.ink - frame.ground) / (own.ink - own.ground)
    levels = frame.ground + (np.asarray(resized, np.float32) - own.ground) * contrast
    return levels.clip(0, 255).round().astype(np.uint8)[None, ..., None]


def _overhangs(top: float, left: float, side: float) -> tuple[float, float, float, float]:
    """How far a square sticks out of a picture, on each side."""
    return -top, -left, top + side - _WORKING_SIDE, left + side - _WORKING_SIDE


def _ink(
    image: UInt8[np.ndarray, "height width channels"],
) -> tuple[Bool[np.ndarray, "height width"], float]:
    """Where it differs from its border by half as much as anywhere, and the border's brightness."""
    pixels = image.astype(np.float32).mean(axis=-1)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    ground = float(np.median(border))
    difference = np.abs(pixels - ground)
    return difference > max(difference.max() / 2, _FAINTEST), ground


def _frame(
    image: UInt8[np.ndarray, "height width channels"],
    mask: Bool[np.ndarray, "height width"],
    ground: float,
) -> Frame:
    side = max(mask.shape)
    rows, columns = np.nonzero(mask)
    extent = (max(np.ptp(rows), np.ptp(columns)) + 1) / side
    row, column = (rows.mean() + 0.5) / mask.shape[0], (columns.mean() + 0.5) / mask.shape[1]
    ink = float(np.percentile(image.mean(axis=-1)[mask], 90))
    return Frame(float(extent), float(row), float(column), ground, ink)

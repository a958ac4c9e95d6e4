"""Morphology of characters: slant, stroke thickness and length, width, height and area of the ink.

Definitions follow Castro et al., *Morpho-MNIST: Quantitative Assessment and Diagnostics for
Representation Learning*, 2019, but for the box, which holds 95 % of the ink, in place of 98 %, for
the skeleton, which is thinned in place of the medial axis, and for the ground, which may be grey or
bright.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float

from jvae_jax.numerics import default_numerics
from jvae_jax.types import PixelsLike
from jvae_jax.validation import as_pixels

_SCALE = 4
"""Factor by which images are enlarged before the ink is separated from the ground."""
_BOX_INK = 0.95
"""Fraction of the ink inside the box, in each direction."""
_HALVINGS = 24
"""Halvings of the interval in which an edge of the box is searched."""
_LEAST_CONTRAST = 16
"""Difference between ink and ground, of 255, below which an image is empty."""
_AT_A_TIME = 512
"""Images that are measured at a time, side by side in one large image."""

PerImage = Float[np.ndarray, "batch"]


class Morphology(NamedTuple):
    """Measures of each image; not a number for an image without ink, whose area is 0."""

    slant: PerImage
    """Angle of the strokes to the vertical, in degrees; above 0 if they lean to the right."""
    thickness: PerImage
    """Mean thickness of the strokes, in pixels."""
    length: PerImage
    """Length of the strokes, in pixels."""
    width: PerImage
    """Width of the box that holds 95 % of the ink after removing the slant, in pixels."""
    height: PerImage
    """Height of that box, in pixels."""
    area: PerImage
    """Area of the ink, in square pixels."""


def measure(images: PixelsLike) -> Morphology:
    """Measures grey images of characters.

    The ground is the median of the border, and ink the absolute difference from it, so that bright
    ink on dark ground and dark ink on bright ground measure the same. The slant is the angle of the
    horizontal shear that removes the correlation of the ink's coordinates. For the other measures,
    ink is what exceeds half of the highest difference. The thickness is twice the mean distance of
    the skeleton from the ground, and the length that of the skeleton.

    Args:
        images: uint8, (batch, height, width, 1), of at least 3 x 3 pixels.

    Returns:
        The measures, (batch,) each.

    Raises:
        ValueError: if the images aren't uint8 of one channel, or are smaller.

    References:
        Castro, Tan, Kainz, Konukoglu and Glocker, *Morpho-MNIST: Quantitative Assessment and
        Diagnostics for Representation Learning*, 2019, section 3.
    """
    images = np.asarray(as_pixels(images))
    _, height, width, channels = images.shape
    if channels != 1:
        raise ValueError(f"morphology is measured of grey images, got {channels} channels")
    if min(height, width) < 3:
        raise ValueError(f"images must have at least 3 x 3 pixels, got {height} x {width}")
    starts = range(0, len(images), _AT_A_TIME)
    chunks = [images[start : start + _AT_A_TIME, ..., 0] for start in starts]
    with ThreadPoolExecutor() as threads:
        measured = list(threads.map(_measure, chunks))
    empty = np.zeros((0, len(Morphology._fields)))
    return Morphology(*np.concatenate([empty, *measured]).T)


@default_numerics()  # here, as it affects one thread only
def _measure(images: np.ndarray) -> Float[np.ndarray, "batch measures"]:
    """Measures at most ``_AT_A_TIME`` images; columns are in the order of :class:`Morphology`."""
    # Few different numbers, each of which is compiled once.
    full = np.zeros((1 << (len(images) - 1).bit_length(), *images.shape[1:]), np.uint8)
    full[: len(images)] = images
    strokes, slant, width, height = map(np.asarray, _separate(full))
    thickness, length, area = _measure_strokes(strokes)
    measures = np.stack([slant, thickness, length, width, height], axis=1).astype(np.float64)
    measures[area == 0] = np.nan
    return np.column_stack([measures, area])[: len(images)]


@jax.jit
def _separate(images: Array) -> tuple[Array, Array, Array, Array]:
    """Returns the enlarged strokes as booleans, slant in degrees, and width and height."""
    values = images.astype(jnp.float32)
    sides = [values[:, 0], values[:, -1], values[:, 1:-1, 0], values[:, 1:-1, -1]]
    ground = jnp.median(jnp.concatenate(sides, axis=1), axis=1)
    ink = jnp.abs(values - ground[:, None, None])
    contrast = ink.max(axis=(1, 2), keepdims=True)
    ink = jnp.where(contrast < _LEAST_CONTRAST, 0, ink / contrast)
    count, height, width = ink.shape
    enlarged = jax.image.resize(ink, (count, _SCALE * height, _SCALE * width), "cubic")
    mass = ink / jnp.sum(ink, axis=(1, 2), keepdims=True)
    y, x = jnp.arange(height, dtype=jnp.float32)[:, None], jnp.arange(width, dtype=jnp.float32)
    mean_y, mean_x = (jnp.sum(mass * each, (1, 2), keepdims=True) for each in (y, x))
    covariance = jnp.sum(mass * (x - mean_x) * (y - mean_y), axis=(1, 2))
    variance = jnp.sum(mass * (y - mean_y) ** 2, axis=(1, 2))
    shear = jnp.where(variance > 0, covariance / variance, 0)
    upright_x = x - shear[:, None, None] * (y - mean_y)
    return (
        enlarged >= 0.5,
        jnp.rad2deg(jnp.arctan(-shear)),
        _extent(mass, upright_x),
        _extent(mass, jnp.broadcast_to(y, mass.shape)),
    )


def _extent(mass: Array, positions: Array) -> Array:
    """Length of the interval that leaves out equal masses of pixels, 1 long, on both sides."""

    def mass_below(edges: Array) -> Array:
        covered = jnp.clip(edges[:, None, None] - positions + 0.5, 0, 1)
        return jnp.sum(mass * covered, axis=(1, 2))

    def edge(outside: float) -> Array:
        def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bounds
            middle = (low + high) / 2
            is_below = mass_below(middle) < outside
            return jnp.where(is_below, middle, low), jnp.where(is_below, high, middle)

        inked = jnp.where(mass > 0, positions, 0)
        bounds = inked.min(axis=(1, 2)) - 0.5, inked.max(axis=(1, 2)) + 0.5
        return lax.fori_loop(0, _HALVINGS, halve, bounds)[0]

    return edge((1 + _BOX_INK) / 2) - edge((1 - _BOX_INK) / 2)


def _measure_strokes(
    strokes: Bool[np.ndarray, "batch height width"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean thickness, length and area of enlarged strokes, in pixels of the original images."""
    # scikit-image takes a second to import.
    from scipy.ndimage import distance_transform_edt
    from skimage.morphology import skeletonize

    # One image of all, cropped and one below the other with ground between, as the functions take
    # longer to call than to process a character.
    crops = [np.pad(image[_box(image)], 1) for image in strokes]
    starts = np.cumsum([0, *(len(crop) for crop in crops)])
    column = np.zeros((starts[-1], max(crop.shape[1] for crop in crops)), bool)
    for start, crop in zip(starts, crops, strict=False):
        column[start : start + len(crop), : crop.shape[1]] = crop

    def per_image(rows: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        images = np.searchsorted(starts, rows, side="right") - 1
        return np.bincount(images, values, minlength=len(strokes))

    skeleton = skeletonize(column)
    points = np.stack(np.nonzero(skeleton))
    ground: Any = distance_transform_edt(column, return_distances=False, return_indices=True)
    distances = np.linalg.norm(points - ground[:, *points], axis=0)
    thickness = 2 * per_image(points[0], distances) / per_image(points[0]).clip(1)
    straight = per_image(_pairs(skeleton, 0, 1)) + per_image(_pairs(skeleton, 1, 0))
    mirrored = skeleton[:, ::-1]
    diagonal = per_image(_pairs(skeleton, 1, 1)) + per_image(_pairs(mirrored, 1, 1))
    length = straight + np.sqrt(2) * diagonal
    return thickness / _SCALE, length / _SCALE, strokes.sum(axis=(1, 2)) / _SCALE**2


def _box(strokes: Bool[np.ndarray, "height width"]) -> tuple[slice, slice]:
    """Rows and columns with strokes."""
    rows, columns = (np.flatnonzero(strokes.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return slice(0), slice(0)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _pairs(skeleton: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Row of the first point of each pair of points with this offset."""
    height, width = skeleton.shape
    first = skeleton[: height - rows, : width - columns]
    return np.nonzero(first & skeleton[rows:, columns:])[0]

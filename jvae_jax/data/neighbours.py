"""Images of a dataset that are near each image."""

import math
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float, Int

from jvae_jax.types import Pixels

_COMPONENTS = 50
"""Principal components in which the first candidates are found."""
_FITTED = 20_000
"""Images from which principal components are estimated."""
CANDIDATES = 200
"""Nearest images in the principal components."""
_SHORTLISTED = 20
"""Candidates that are nearest at half the size."""
_SIDE = 32
"""Larger images are halved until no side is longer, in pixels."""
_CHUNK = 16
"""Images whose candidates are compared in one dispatch; these fit in the cache."""


def nearest_images(images: Pixels, count: int) -> Int[np.ndarray, "images count"]:
    """Finds the nearest other images of each, up to small deformations.

    The distance is that of the image distortion model: each pixel of an image is compared with
    those of the other within two rows and columns, and the best match counts. It is computed for
    the 20 best of 200 candidates: the nearest in the first 50 principal components of the pixels,
    then by the same distance at half the size, within one row and column.

    Distances in the principal components are computed to all images, so time grows with the square
    of their number: about two minutes for 60,000 on two cores.

    Args:
        images: (images, height, width, channels). Those with a side of over 32 pixels are halved.
        count: number of neighbours, at least 1 and below the number of images.

    Returns:
        Indices of the neighbours, the nearest first.

    Raises:
        ValueError: if ``count`` is out of range.

    References:
        Keysers et al., *Deformation Models for Image Recognition*, 2007, for the distance. Van
        Gansbeke et al., *SCAN: Learning to Classify Images without Labels*, 2020, which takes
        nearest neighbours for images of one class.
    """
    examples = len(images)
    if not 0 < count < examples:
        raise ValueError(f"neighbours must be from 1 to {examples - 1}, got {count}")
    candidates = _nearest_by_components(images, min(max(CANDIDATES, count), examples - 1))
    halvings = max(0, math.ceil(math.log2(max(images.shape[1:3]) / _SIDE)))
    shortlist = _reordered(images, candidates, halvings=halvings + 1, shift=1)
    shortlist = shortlist[:, : max(_SHORTLISTED, count)]
    return _reordered(images, shortlist, halvings=halvings, shift=2)[:, :count]


def _nearest_by_components(images: Pixels, count: int) -> Int[np.ndarray, "images count"]:
    """Returns the nearest other images of each in the principal components, nearest first."""
    # sklearn takes a second to import.
    from sklearn.decomposition import PCA
    from sklearn.neighbors import NearestNeighbors

    def pixels(images: Pixels) -> np.ndarray:
        return np.asarray(images).reshape(len(images), -1).astype(np.float32) / 255

    examples = len(images)
    fitted = pixels(images[:: -(-examples // _FITTED)])
    components = min(_COMPONENTS, *fitted.shape)
    pca = PCA(components, svd_solver="randomized", random_state=0).fit(fitted)
    chunks = [images[start : start + _FITTED] for start in range(0, examples, _FITTED)]
    features = np.concatenate([pca.transform(pixels(chunk)) for chunk in chunks])
    search = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(features)
    # Without arguments, an image isn't its own neighbour.
    return np.asarray(search.kneighbors(return_distance=False), np.int32)


def _reordered(
    images: Pixels, candidates: Int[np.ndarray, "images count"], *, halvings: int, shift: int
) -> Int[np.ndarray, "images count"]:
    """Orders the candidates of each image by their distortion."""

    def reorder(start: int) -> np.ndarray:
        rows = candidates[start : start + _CHUNK]
        chunk = images[start : start + _CHUNK]
        # Those of one rank together, as many as there are images.
        others = np.asarray(images[rows.T])
        distances = _distortions(np.asarray(chunk), others, halvings=halvings, shift=shift)
        order = np.argsort(np.asarray(distances), axis=0, kind="stable").T
        return np.take_along_axis(rows, order, axis=1)

    with ThreadPoolExecutor() as threads:
        return np.concatenate(list(threads.map(reorder, range(0, len(images), _CHUNK))))


@partial(jax.jit, static_argnames=("halvings", "shift"))
def _distortions(
    images: Array, others: Array, *, halvings: int, shift: int
) -> Float[Array, "ranks images"]:
    """Distances of images from others, those of each rank at a time, in the distortion model.

        d(x, y) = sum_p min_s sum_u |g(x)_(p + u) - g(y)_(p + u + s)|^2

    g(x)_p is the gradient of x at pixel p, s a shift of at most ``shift`` rows and columns, and u
    one of at most one row and column.

    Args:
        images: (images, height, width, channels).
        others: (ranks, images, height, width, channels).
        halvings: number of times that all images are halved first.
        shift: largest shift, in pixels after halving.
    """
    gradients = _gradients(images, halvings)
    shifts = jnp.stack(jnp.indices((2 * shift + 1, 2 * shift + 1)).reshape(2, -1), axis=-1)

    def distances(others: Array) -> Array:
        padded = jnp.pad(_gradients(others, halvings), [(0, 0), *2 * [(shift, shift)], (0, 0)])

        def match(least: Array, start: Array) -> tuple[Array, None]:
            shifted = lax.dynamic_slice(padded, (0, *start, 0), gradients.shape)
            squares = jnp.sum((gradients - shifted) ** 2, axis=0)
            squares = jnp.pad(squares, [(1, 1), (1, 1), (0, 0)])
            rows = squares[:-2] + squares[1:-1] + squares[2:]
            return jnp.minimum(least, rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]), None

        least, _ = lax.scan(match, jnp.full(gradients.shape[1:], jnp.inf), shifts)
        return jnp.sum(least, axis=(0, 1))

    return lax.map(distances, others)


def _gradients(
    images: Array, halvings: int
) -> Float[Array, "directions_channels height width images"]:
    """Sobel's gradients of halved images, which come last so that their arithmetic vectorizes."""
    pixels = jnp.moveaxis(images.astype(jnp.float32) / 255, 0, -1)
    for _ in range(halvings):
        height, width = (max(1, side // 2) for side in pixels.shape[:2])
        # The last row and column of an odd number are left out.
        blocks = pixels[: 2 * height, : 2 * width]
        blocks = blocks.reshape(height, -1, width, blocks.shape[1] // width, *pixels.shape[2:])
        pixels = jnp.mean(blocks, axis=(1, 3))
    pixels = jnp.pad(pixels, [(1, 1), (1, 1), (0, 0), (0, 0)], mode="edge")
    rows = pixels[:-2] + 2 * pixels[1:-1] + pixels[2:]
    columns = pixels[:, :-2] + 2 * pixels[:, 1:-1] + pixels[:, 2:]
    gradients = jnp.stack([rows[:, 2:] - rows[:, :-2], columns[2:] - columns[:-2]])
    return jnp.moveaxis(gradients, 3, 1).reshape(-1, *gradients.shape[1:3], gradients.shape[-1])


def mutual_neighbours(nearest: Int[np.ndarray, "images count"]) -> Int[np.ndarray, "images count"]:
    """Keeps those nearest images of each image that have it among theirs, too.

    These are more often of its class than the others are. An image that resembles several classes
    is among the nearest of many images, of which few are among its own.

    Args:
        nearest: indices of the nearest images of each, see :func:`nearest_images`.

    Returns:
        The mutual ones of each image, nearest first, and repeated until its row is full. An image
        without any is its own neighbour.

    References:
        Qin et al., *Hello neighbor: accurate object retrieval with k-reciprocal nearest
        neighbors*, 2011.
    """
    images, count = nearest.shape
    itself = np.arange(images, dtype=nearest.dtype)[:, None]
    # A column at a time, since all of them need memory for the square of their number.
    columns = [(nearest[column] == itself).any(axis=1) for column in nearest.T]
    is_mutual = np.stack(columns, axis=1)
    mutual = is_mutual.sum(axis=1, keepdims=True)
    mutual_first = np.argsort(~is_mutual, axis=1, kind="stable")
    repeated = np.take_along_axis(mutual_first, np.arange(count) % np.maximum(mutual, 1), axis=1)
    return np.where(mutual > 0, np.take_along_axis(nearest, repeated, axis=1), itself)

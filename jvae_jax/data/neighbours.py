"""Images of a dataset that are near each image."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float, Int, UInt8

from jvae_jax.types import Pixels

_COMPONENTS = 50
"""Principal components in which the first candidates are found."""
_FITTED = 20_000
"""Images from which principal components are estimated, and that are read at a time."""
CANDIDATES = 200
"""Nearest images in the principal components, or as many as are asked for."""
_SHORTLISTED = 20
"""Candidates that are nearest at half the size, or as many as are asked for."""
_SIDE = 32
"""Images are halved until no side is longer, in pixels."""
_CHUNK = 16
"""Images whose candidates are compared in one dispatch, one candidate of each at a time; these fit
in the cache."""


def nearest_images(images: Pixels, count: int) -> Int[np.ndarray, "images count"]:
    """Finds the nearest other images of each, up to small deformations.

    The distance is that of the image distortion model: the gradients in the 3 x 3 pixels around
    each pixel are compared with those around the pixels within two rows and columns of it in the
    other image, and the best match counts. It is computed for the 20 best of 200 candidates: the
    nearest in the first 50 principal components of the pixels, then by the same distance at half
    the size, within one row and column.

    It takes about two minutes for 60,000 images on two cores. The time of the search in the
    principal components, a fifth of that, grows with the square of their number.

    Args:
        images: (images, height, width, channels). Those with a side of over 32 pixels are compared
            at half the size, a quarter and so on.
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
    while max(images.shape[1:3]) > _SIDE:
        images = _halved(images)
    shortlist = _nearest_first(_halved(images), candidates, shift=1)
    shortlist = shortlist[:, : max(_SHORTLISTED, count)]
    return _nearest_first(images, shortlist, shift=2)[:, :count]


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


def _halved(images: Pixels) -> UInt8[np.ndarray, "batch half_height half_width channels"]:
    """Means of 2 x 2 pixels, without the last row and column of an odd number."""
    height, width = (max(1, side // 2) for side in images.shape[1:3])
    halved = np.empty((len(images), height, width, images.shape[3]), np.uint8)
    for start in range(0, len(images), _FITTED):
        chunk = np.asarray(images[start : start + _FITTED, : 2 * height, : 2 * width])
        rows, columns = (chunk.shape[1] // height, chunk.shape[2] // width)
        blocks = chunk.reshape(len(chunk), height, rows, width, columns, -1)
        halved[start : start + _FITTED] = np.rint(blocks.mean(axis=(2, 4), dtype=np.float32))
    return halved


def _nearest_first(
    images: Pixels, candidates: Int[np.ndarray, "images count"], *, shift: int
) -> Int[np.ndarray, "images count"]:
    """Orders the candidates of each image by their distance in the image distortion model."""

    def order(start: int) -> np.ndarray:
        chunk = np.asarray(images[start : start + _CHUNK])
        found = candidates[start : start + _CHUNK]
        distances = _distortions(chunk, np.asarray(images[found.T]), shift=shift)
        nearest_first = np.argsort(np.asarray(distances), axis=0, kind="stable").T
        return np.take_along_axis(found, nearest_first, axis=1)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return np.concatenate(list(threads.map(order, range(0, len(images), _CHUNK))))


@partial(jax.jit, static_argnames="shift")
def _distortions(images: Array, others: Array, *, shift: int) -> Float[Array, "candidates images"]:
    """Distances between images and the candidates of each, in the image distortion model.

        d(x, y) = sum_p min_s sum_u |g(x)_(p + u) - g(y)_(p + u + s)|^2

    g(x)_p is the gradient of x at pixel p, and 0 outside the image; s is a shift of at most
    ``shift`` rows and columns, and u one of at most one row and column to a pixel of x.

    Args:
        images: (images, height, width, channels).
        others: a candidate of each image at a time, (candidates, images, height, width, channels).
        shift: largest shift, in pixels.
    """
    gradients = _gradients(images)
    shifts = jnp.stack(jnp.indices((2 * shift + 1, 2 * shift + 1)).reshape(2, -1), axis=-1)

    def distances(others: Array) -> Array:
        padded = jnp.pad(_gradients(others), [(0, 0), *2 * [(shift, shift)], (0, 0)])

        def match(least: Array, start: Array) -> tuple[Array, None]:
            shifted = lax.dynamic_slice(padded, (0, *start, 0), gradients.shape)
            squares = jnp.sum((gradients - shifted) ** 2, axis=0)
            squares = jnp.pad(squares, [(1, 1), (1, 1), (0, 0)])
            rows = squares[:-2] + squares[1:-1] + squares[2:]
            return jnp.minimum(least, rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]), None

        least, _ = lax.scan(match, jnp.full(gradients.shape[1:], jnp.inf), shifts)
        return jnp.sum(least, axis=(0, 1))

    return lax.map(distances, others)


def _gradients(images: Array) -> Float[Array, "directions_channels height width images"]:
    """Responses to Sobel's filters; images come last, so that arithmetic on them vectorizes."""
    pixels = jnp.moveaxis(images.astype(jnp.float32) / 255, 0, -1)
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

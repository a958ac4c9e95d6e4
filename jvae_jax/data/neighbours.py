"""Images of a dataset that are near each image."""

import numpy as np
from jaxtyping import Int

from jvae_jax.types import Pixels

_COMPONENTS = 50
"""Principal components in which distances are measured."""
_FITTED = 20_000
"""Images from which principal components are estimated."""


def nearest_images(images: Pixels, count: int) -> Int[np.ndarray, "images count"]:
    """Finds the nearest other images of each, in the first 50 principal components of the pixels.

    Distances to all images are computed, so time grows with the square of their number: about a
    minute for 60,000 on two cores.

    Args:
        images: (images, height, width, channels).
        count: number of neighbours, at least 1 and below the number of images.

    Returns:
        Indices of the neighbours, the nearest first.

    Raises:
        ValueError: if ``count`` is out of range.

    References:
        Van Gansbeke et al., *SCAN: Learning to Classify Images without Labels*, 2020, which takes
        nearest neighbours in learned features for images of one class.
    """
    # sklearn takes a second to import.
    from sklearn.decomposition import PCA
    from sklearn.neighbors import NearestNeighbors

    examples = len(images)
    if not 0 < count < examples:
        raise ValueError(f"neighbours must be from 1 to {examples - 1}, got {count}")

    def pixels(images: Pixels) -> np.ndarray:
        return np.asarray(images).reshape(len(images), -1).astype(np.float32) / 255

    fitted = pixels(images[:: -(-examples // _FITTED)])
    components = min(_COMPONENTS, *fitted.shape)
    pca = PCA(components, svd_solver="randomized", random_state=0).fit(fitted)
    chunks = [images[start : start + _FITTED] for start in range(0, examples, _FITTED)]
    features = np.concatenate([pca.transform(pixels(chunk)) for chunk in chunks])
    search = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(features)
    # Without arguments, an image isn't its own neighbour.
    return np.asarray(search.kneighbors(return_distance=False), np.int32)


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

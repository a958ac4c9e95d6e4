"""The nearest images of each image of a dataset."""

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

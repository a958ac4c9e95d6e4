"""Pseudo-labels: labels of unlabelled images, by a trained model or by label propagation."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

FRACTION = 0.4
"""Fraction of the images in each category that get a pseudo-label."""
PROPAGATION_NEIGHBOURS = 5
"""Nearest images of each that are joined to it in the graph of label propagation."""
_PROPAGATION_ALPHA = 0.995
"""Factor by which a label counts less at each edge of the graph."""


def most_probable_categories(
    logits: Float[np.ndarray, "images categories"],
) -> tuple[Int[np.ndarray, "images"], Float[np.ndarray, "images"]]:
    """Returns the most probable category of each image and the odds against it.

    The odds, (1 - q(c|x)) / q(c|x), don't round to 0 where q(c|x) rounds to 1.

    Args:
        logits: logits of q(c|x).
    """
    categories = np.argmax(logits, axis=-1)
    ratios = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    np.put_along_axis(ratios, categories[:, None], 0.0, axis=-1)
    return categories, ratios.sum(axis=-1)


def pseudo_labels(
    categories: Int[np.ndarray, "images"],
    odds: Float[np.ndarray, "images"],
    class_of_category: Sequence[int | None],
    *,
    fraction: float = FRACTION,
) -> Int[np.ndarray, "images"]:
    """Labels the images of which a model is most certain (Lee, 2013, with a fixed number of them).

    Args:
        categories: most probable category of each image.
        odds: odds against it.
        class_of_category: class of each category; None if its images get no label.
        fraction: fraction of the images in each category that are labelled, rounded down; the same
            in each, so that none is left out.

    Returns:
        int32 class indices; -1 means unlabelled.
    """
    labels = np.full(len(categories), -1, np.int32)
    for category, label in enumerate(class_of_category):
        if label is not None:
            images = np.flatnonzero(categories == category)
            most_certain = images[np.argsort(odds[images], kind="stable")]
            labels[most_certain[: int(fraction * len(images))]] = label
    return labels


def propagated_labels(
    labels: Int[np.ndarray, "images"], nearest: Int[np.ndarray, "images count"]
) -> Int[np.ndarray, "images"]:
    """Spreads labels over the graph in which each image is joined to its nearest ones.

    Each class has a value at each image, and the largest is the image's label:

        f = alpha S f + y,  S = D^-1/2 W D^-1/2,  D = diag(sum_j W_ij),  alpha = 0.995

    y is 1 at the labelled images of the class and 0 at the others. W_ij is 2 if each of two images
    is among the nearest of the other, 1 if one is, and 0 otherwise.

    Args:
        labels: class indices; -1 means unlabelled.
        nearest: indices of the nearest images of each, see
            :func:`~jvae_jax.data.neighbours.nearest_images`.

    Returns:
        int32 class indices; -1 means that no labelled image is connected to this one. Those of
        labelled images may change.

    References:
        Zhou et al., *Learning with Local and Global Consistency*, 2004.
    """
    # scipy.sparse takes a part of a second to import.
    from scipy.sparse import csr_matrix, diags, identity
    from scipy.sparse.linalg import cg

    images, count = nearest.shape
    ends = np.arange(0, nearest.size + 1, count)
    directed = csr_matrix((np.ones(nearest.size), nearest.ravel(), ends), (images, images))
    weights = directed + directed.T
    scale = diags(np.asarray(weights.sum(axis=0)).ravel() ** -0.5)
    equations = identity(images) - _PROPAGATION_ALPHA * (scale @ weights @ scale)
    propagated, largest = np.full(images, -1, np.int32), np.zeros(images)
    for label in np.unique(labels[labels >= 0]):
        values, _ = cg(equations, (labels == label).astype(np.float64), rtol=1e-8)
        propagated[values > largest] = label
        largest = np.maximum(largest, values)
    return propagated


def propagation_errors(
    labels: Int[np.ndarray, "images"], nearest: Int[np.ndarray, "images count"]
) -> tuple[int, int]:
    """Two-fold cross-validation of label propagation on the labelled images.

    The labels of each class are divided in halves. Each half is hidden in turn and compared with
    what spreads from the other labels. Labels of a class without any other aren't compared.

    Args:
        labels: class indices; -1 means unlabelled.
        nearest: as for :func:`propagated_labels`.

    Returns:
        The number of wrong or missing labels, and of all that are compared.
    """
    labelled = np.flatnonzero(labels >= 0)
    by_class = labelled[np.argsort(labels[labelled], kind="stable")]
    wrong = compared = 0
    for fold in (by_class[::2], by_class[1::2]):
        kept = labels.copy()
        kept[fold] = -1
        hidden = fold[np.isin(labels[fold], kept)]
        wrong += int(np.count_nonzero(propagated_labels(kept, nearest)[hidden] != labels[hidden]))
        compared += len(hidden)
    return wrong, compared

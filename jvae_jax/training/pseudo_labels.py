"""Pseudo-labels: labels of unlabelled images, by a trained model or by label propagation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

FRACTION = 0.4
"""Fraction of the images in each category that get a pseudo-label."""
PROPAGATION_NEIGHBOURS = 5
"""Nearest images of each that are joined to it in the graph of label propagation."""
_PROPAGATION_ALPHA = 0.995
"""Weight of the neighbours' labels, relative to that of the given ones."""
_MAX_ITERATIONS = 10_000
"""Iterations of label propagation; it converges in a few thousands at most."""


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

    A label counts once for each of the two images that has the other among its nearest.

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
    # sklearn takes a second to import.
    from scipy.sparse import csr_matrix
    from sklearn.semi_supervised import LabelSpreading

    images, count = nearest.shape
    rows = np.arange(0, nearest.size + 1, count)
    directed = csr_matrix((np.ones(nearest.size), nearest.ravel(), rows), (images, images))
    graph = directed + directed.T

    def kernel(*_: np.ndarray) -> Any:
        return graph

    spreading = LabelSpreading(
        kernel=kernel,  # pyright: ignore[reportArgumentType] # annotated as a name
        alpha=_PROPAGATION_ALPHA,
        max_iter=_MAX_ITERATIONS,
    )
    spreading.fit(np.zeros((images, 1)), labels)
    is_reached = spreading.label_distributions_.any(axis=1)
    return np.where(is_reached, spreading.transduction_, -1).astype(np.int32)


def propagation_errors(
    labels: Int[np.ndarray, "images"], nearest: Int[np.ndarray, "images count"]
) -> tuple[int, int]:
    """Two-fold cross-validation of label propagation on the labelled images.

    Half of the labels of each class are hidden, and compared with those that spread from the other
    half; then the other way round.

    Args:
        labels: class indices; -1 means unlabelled.
        nearest: as for :func:`propagated_labels`.

    Returns:
        The number of wrong labels and of all that were hidden: those of the classes with at least
        two labels.
    """
    labelled = np.flatnonzero(labels >= 0)
    by_class = labelled[np.argsort(labels[labelled], kind="stable")]
    wrong = hidden = 0
    for fold in (by_class[::2], by_class[1::2]):
        kept = labels.copy()
        kept[fold] = -1
        compared = fold[np.isin(labels[fold], kept)]
        if len(compared):
            propagated = propagated_labels(kept, nearest)[compared]
            wrong += int(np.count_nonzero(propagated != labels[compared]))
            hidden += len(compared)
    return wrong, hidden

"""Pseudo-labels: labels of unlabelled images, as a trained model reads them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

FRACTION = 0.4
"""Fraction of the images in each category that get a pseudo-label."""


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

"""Pseudo-labels: labels of unlabelled images, as a trained model reads them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

FRACTION = 0.4
"""Fraction of the images in each category that get a pseudo-label."""


def pseudo_labels(
    logits: Float[np.ndarray, "images categories"],
    class_of_category: Sequence[int | None],
    *,
    fraction: float = FRACTION,
) -> Int[np.ndarray, "images"]:
    """Labels the images of which a model is most certain (Lee, 2013, with a fixed number of them).

    Args:
        logits: logits of q(c|x).
        class_of_category: class of each category; None if there is none.
        fraction: labelled fraction of the images whose most probable category it is, rounded down;
            the same in each category, so that none is left out.

    Returns:
        int32 class indices; -1 means unlabelled.
    """
    differences = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    # The odds against the most probable category, which don't round to 0 as 1 - q(c|x) does.
    odds = np.sort(np.exp(differences), axis=-1)[:, :-1].sum(axis=-1)
    categories = np.argmax(logits, axis=-1)
    labels = np.full(len(logits), -1, np.int32)
    for category, label in enumerate(class_of_category):
        images = np.flatnonzero(categories == category)
        most_certain = images[np.argsort(odds[images], kind="stable")]
        if label is not None:
            labels[most_certain[: int(fraction * len(images))]] = label
    return labels

"""Selection of the labelled examples for semi-supervised training."""

import numpy as np
from jaxtyping import Int


def keep_labels(
    labels: Int[np.ndarray, "examples"], count: int, seed: int
) -> Int[np.ndarray, "examples"]:
    """Keeps ``count`` labels, balanced over classes; the rest become -1.

    Classes contribute equally many labels, except that a class with too few contributes all of
    its labels.

    Args:
        labels: class indices; -1 for unlabelled examples.
        count: number of labels to keep.
        seed: seed of the selection.

    Returns:
        A copy of ``labels`` with exactly ``count`` entries other than -1.

    Raises:
        ValueError: if ``count`` is negative or exceeds the number of labels.
    """
    rng = np.random.default_rng(seed)
    labelled = rng.permutation(np.flatnonzero(labels >= 0))
    if not 0 <= count <= len(labelled):
        raise ValueError(
            f"num_labels must be from 0 to {len(labelled)}, the number of labels, got {count}"
        )
    # Round-robin over classes: the first of every class, then the second of every class, ...;
    # the order within a round is random.
    rounds = np.empty(len(labelled), int)
    for label in np.unique(labels[labelled]):
        members = labels[labelled] == label
        rounds[members] = np.arange(members.sum())
    selected = labelled[np.lexsort((rng.random(len(labelled)), rounds))[:count]]
    kept = np.full_like(labels, -1)
    kept[selected] = labels[selected]
    return kept

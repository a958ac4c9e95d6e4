"""Few labels."""

import numpy as np
from jaxtyping import Int


def hide_labels(
    labels: Int[np.ndarray, "examples"], count: int, seed: int
) -> Int[np.ndarray, "examples"]:
    """Labels of which so many are kept and the rest are -1, as many of each class as may be.

    A class that has too few gives what it has. It is as if someone had labelled so many of each
    class: all labels decide which are kept, together with the seed.

    Raises:
        ValueError: if there are fewer labels than that.
    """
    rng = np.random.default_rng(seed)
    labelled = rng.permutation(np.flatnonzero(labels >= 0))
    if not 0 <= count <= len(labelled):
        raise ValueError(f"num_labels must be 0 to {len(labelled)}, all there are, got {count}")
    # Every class's first, then every class's second and so on; within a round in random order.
    rounds = np.empty(len(labelled), int)
    for label in np.unique(labels[labelled]):
        members = labels[labelled] == label
        rounds[members] = np.arange(members.sum())
    kept = labelled[np.lexsort((rng.random(len(labelled)), rounds))[:count]]
    hidden = np.full_like(labels, -1)
    hidden[kept] = labels[kept]
    return hidden

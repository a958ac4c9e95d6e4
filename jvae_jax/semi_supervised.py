"""Few labels: which are kept, how a batch comes to hold some, what an unlabelled c means."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int
from scipy.optimize import linear_sum_assignment

from jvae_jax.types import PRNGKey


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


@partial(jax.jit, static_argnames=("batch_size", "labelled_per_batch"))
def mixed_order(
    key: PRNGKey,
    epoch: int | Array,
    labelled: Int[Array, "few"],
    unlabelled: Int[Array, "many"],
    *,
    batch_size: int,
    labelled_per_batch: int,
) -> Int[Array, "order"]:
    """The examples of an epoch, batch by batch: so many labelled ones first, then unlabelled ones.

    An epoch has as many batches as examples fill. Each kind is visited in turns, every one of it
    once before any is visited again.
    """
    steps = (len(labelled) + len(unlabelled)) // batch_size

    def visits(key: PRNGKey, examples: Array, per_batch: int) -> Array:
        turns = -(-steps * per_batch // len(examples))
        keys = jax.random.split(key, turns)
        orders = jax.vmap(lambda key: jax.random.permutation(key, examples))(keys)
        return orders.reshape(-1)[: steps * per_batch].reshape(steps, per_batch)

    labelled_key, unlabelled_key = jax.random.split(jax.random.fold_in(key, epoch))
    mixed = [
        visits(labelled_key, labelled, labelled_per_batch),
        visits(unlabelled_key, unlabelled, batch_size - labelled_per_batch),
    ]
    return jnp.concatenate(mixed, axis=1).reshape(-1)


def best_matching(
    categories: Int[np.ndarray, "examples"],
    labels: Int[np.ndarray, "examples"],
    classes: int,
    free: Sequence[int],
) -> Int[np.ndarray, "classes"]:
    """The one-to-one matching of categories to labels that agrees on the most examples.

    Args:
        categories, labels: of the examples.
        classes: how many there are of both.
        free: those to be matched; the others are each its own label.

    Returns:
        The label of each category.
    """
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (categories, labels), 1)
    _, matched = linear_sum_assignment(counts[np.ix_(free, free)], maximize=True)
    matching = np.arange(classes)
    matching[list(free)] = np.asarray(free)[matched]
    return matching

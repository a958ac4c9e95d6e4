"""Order in which an epoch visits the training examples."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from jvae_jax.types import PRNGKey


@partial(jax.jit, static_argnames="examples")
def epoch_order(key: Array, epoch: int | Array, examples: int) -> Int[Array, "examples"]:
    """Returns a random permutation of the examples.

    Args:
        key: random key of the run.
        epoch: number of the epoch, folded into the key.
        examples: number of training examples.
    """
    return jax.random.permutation(jax.random.fold_in(key, epoch), examples)


@jax.jit
def balanced_order(
    key: Array, epoch: int | Array, labels: Int[Array, "examples"]
) -> Int[Array, "examples"]:
    """Samples examples with replacement, every class with equal probability.

    Args:
        key: random key of the run.
        epoch: number of the epoch, folded into the key.
        labels: labels of all training examples, none of which is -1.

    Returns:
        As many indices as there are examples.
    """
    weights = 1 / jnp.bincount(labels, length=len(labels))[labels]
    return jax.random.choice(
        jax.random.fold_in(key, epoch), len(labels), labels.shape, p=weights / weights.sum()
    )


@jax.jit
def random_neighbours(
    key: Array, epoch: int | Array, neighbours: Int[Array, "examples count"]
) -> Int[Array, "examples"]:
    """Chooses one of the images near each example for an epoch.

    Args:
        key: random key of the run.
        epoch: number of the epoch, folded into the key.
        neighbours: of each example, see :func:`~jvae_jax.data.neighbours.mutual_neighbours`.

    Returns:
        The index of a neighbour of each example.
    """
    key = jax.random.fold_in(key, epoch)
    columns = jax.random.randint(key, (len(neighbours), 1), 0, neighbours.shape[1])
    return jnp.take_along_axis(neighbours, columns, axis=1)[:, 0]


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
    """Returns an order with a fixed number of labelled examples in each batch.

    The labelled examples of a batch come first. An epoch has as many batches as the examples fill;
    both groups are permuted, and repeated in a new permutation once all have been visited.

    Args:
        key: random key of the run.
        epoch: number of the epoch, folded into the key.
        labelled: indices of the labelled examples.
        unlabelled: indices of the unlabelled examples.
        batch_size: examples per batch.
        labelled_per_batch: labelled examples per batch.
    """
    steps = (len(labelled) + len(unlabelled)) // batch_size

    def visits(key: PRNGKey, examples: Array, per_batch: int) -> Array:
        repeats = -(-steps * per_batch // len(examples))
        keys = jax.random.split(key, repeats)
        orders = jax.vmap(lambda key: jax.random.permutation(key, examples))(keys)
        return orders.reshape(-1)[: steps * per_batch].reshape(steps, per_batch)

    labelled_key, unlabelled_key = jax.random.split(jax.random.fold_in(key, epoch))
    batches = [
        visits(labelled_key, labelled, labelled_per_batch),
        visits(unlabelled_key, unlabelled, batch_size - labelled_per_batch),
    ]
    return jnp.concatenate(batches, axis=1).reshape(-1)

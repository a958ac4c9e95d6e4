"""Few labels: which are kept, how a batch comes to hold some, what an unlabelled c means."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from jvae_jax.types import PRNGKey


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


@partial(jax.jit, static_argnames="examples")
def epoch_order(key: Array, epoch: int | Array, examples: int) -> Int[Array, "examples"]:
    """The order in which an epoch visits the examples."""
    return jax.random.permutation(jax.random.fold_in(key, epoch), examples)


@jax.jit
def balanced_order(
    key: Array, epoch: int | Array, labels: Int[Array, "examples"]
) -> Int[Array, "examples"]:
    """As many examples, drawn with replacement so that every class is as likely.

    Args:
        key, epoch: decide what is drawn.
        labels: of all examples, none of them -1.
    """
    likelihood = 1 / jnp.bincount(labels, length=len(labels))[labels]
    return jax.random.choice(
        jax.random.fold_in(key, epoch), len(labels), labels.shape, p=likelihood / likelihood.sum()
    )

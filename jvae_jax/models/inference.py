"""Many examples, batch by batch in one compiled loop."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from jvae_jax.types import Images, Pixels

BATCH = 200
"""Examples at a time: with more, a CPU is slower for each."""
Results = TypeVar("Results")


def map_batches(function: Callable[..., Results], size: int, *arrays: Array) -> Results:
    """Applies a function of batches of ``size`` to arrays of any number of examples.

    The last batch is filled up with examples from the beginning, whose results are dropped.

    Args:
        function: takes a batch of each array; gives arrays with a result for each example.
        size: examples of a batch.
        arrays: with the examples on their first axis.
    """
    examples = len(arrays[0])
    if examples <= size:
        return function(*arrays)
    batches = -(-examples // size)
    chosen = jnp.arange(batches * size).reshape(batches, size) % examples
    results = lax.map(lambda batch: function(*(array[batch] for array in arrays)), chosen)
    return jax.tree.map(lambda result: result.reshape(-1, *result.shape[2:])[:examples], results)


def scale(images: Pixels) -> Images:
    """uint8 pixels to floats in [0, 1]."""
    return jnp.asarray(images, jnp.float32) / 255

"""Batched inference over any number of examples."""

import math
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float, UInt8

from jvae_jax.types import Images, Pixels

EVAL_BATCH_SIZE = 200
"""Batch size of inference; larger batches take longer per example on CPU."""
CHUNK_BYTES = 1 << 26
"""Bytes of images that :func:`in_chunks` sends to the device at a time."""
Results = TypeVar("Results")


def map_batches(function: Callable[..., Results], batch_size: int, *arrays: Array) -> Results:
    """Applies a function batch by batch in one compiled loop.

    The last batch is padded with the first examples; the extra results are dropped.

    Args:
        function: maps a batch of each array to a pytree of arrays, (batch, ...).
        batch_size: maximum number of examples per batch.
        arrays: arrays of shape (examples, ...).

    Returns:
        The pytree of results, with arrays of shape (examples, ...).
    """
    examples = len(arrays[0])
    if examples <= batch_size:
        return function(*arrays)
    batches = -(-examples // batch_size)
    indices = jnp.arange(batches * batch_size).reshape(batches, batch_size) % examples
    results = lax.map(lambda batch: function(*(array[batch] for array in arrays)), indices)
    return jax.tree.map(lambda result: result.reshape(-1, *result.shape[2:])[:examples], results)


def in_chunks(function: Callable[..., Results], images: np.ndarray, *arrays: np.ndarray) -> Results:
    """Applies a function to images on the host, which may be memory-mapped, chunk by chunk.

    The device holds one chunk at a time, so its memory doesn't grow with the number of images.

    Args:
        function: maps a chunk of images and of each further array to a pytree of arrays,
            (chunk, ...).
        images: uint8, (examples, height, width, channels).
        arrays: further arrays of shape (examples, ...).

    Returns:
        The pytree of results, with arrays of shape (examples, ...), on the host.
    """
    batch_bytes = EVAL_BATCH_SIZE * max(1, math.prod(images.shape[1:]))
    size = EVAL_BATCH_SIZE * max(1, CHUNK_BYTES // batch_bytes)
    results = [
        jax.device_get(function(*(array[start : start + size] for array in (images, *arrays))))
        for start in range(0, max(len(images), 1), size)
    ]
    return jax.tree.map(lambda *parts: np.concatenate(parts), *results)


def scale_pixels(images: Pixels) -> Images:
    """Converts uint8 pixels to floats in [0, 1]."""
    return jnp.asarray(images, jnp.float32) / 255


def to_pixels(images: Float[Array | np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Converts floats in [0, 1] to the nearest uint8 pixels."""
    return (255 * np.asarray(images)).round().astype(np.uint8)

"""Random deformations of images, which preserve the character."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.ndimage import map_coordinates

from jvae_jax import sampling
from jvae_jax.types import Images, PRNGKey

_MAX_DEFORMATION = 0.15
"""Bound of each entry of the matrix of shear, scale and rotation."""
_MAX_SHIFT = 1 / 16
"""Bound of the shift along each axis, as a fraction of the side."""
_DISPLACEMENT = 1 / 32
"""Standard deviation of elastic displacements along each axis, as a fraction of the side."""
_GRID_SIZE = 5
"""Rows and columns of the grid of elastic displacements."""


def random_deformation(
    key: PRNGKey, images: Images, strength: float = 1.0, elastic_strength: float = 0.0
) -> Images:
    """Applies a small random affine transform and elastic deformation to each image.

    With a strength of 1, shear, scale and rotation are up to 15 %, shifts up to a sixteenth of the
    side. Pixels outside the image repeat its edge.

    Args:
        key: a single key or one per example.
        images: images of any size, (batch, height, width, channels).
        strength: factor of all bounds of the affine transform.
        elastic_strength: strength of the elastic deformation: independent Gaussian displacements of
            5x5 points, interpolated in between; with 1, their standard deviation is a
            thirty-second of the side.

    Returns:
        The deformed images, (batch, height, width, channels).

    References:
        Simard et al., *Best Practices for Convolutional Neural Networks Applied to Visual Document
        Analysis*, 2003, for elastic deformations.
    """
    batch, height, width, channels = images.shape
    dtype = images.dtype
    split = partial(jax.random.split, num=3)
    if key.ndim:
        split = jax.vmap(split, out_axes=1)
    matrix_key, shift_key, elastic_key = split(key)
    matrix = sampling.uniform(matrix_key, (batch, 2, 2), strength * _MAX_DEFORMATION, dtype)
    size = jnp.array([height, width], dtype)
    shift = size * sampling.uniform(shift_key, (batch, 2), strength * _MAX_SHIFT, dtype)
    axes = [jnp.arange(length, dtype=dtype) for length in (height, width)]
    grid = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), axis=-1)
    centred = grid - (size - 1) / 2
    coordinates = grid + jnp.einsum("nij,hwj->nhwi", matrix, centred) + shift[:, None, None]
    if elastic_strength:
        points = (batch, _GRID_SIZE, _GRID_SIZE, 2)
        deviation = elastic_strength * _DISPLACEMENT * size
        displacements = deviation * sampling.standard_normal(elastic_key, points, dtype)
        coordinates += jax.image.resize(displacements, coordinates.shape, "cubic")

    def resample(image: Array, coordinates: Array) -> Array:
        rows, columns = jnp.moveaxis(coordinates, -1, 0)
        resampled = [
            map_coordinates(image[..., channel], [rows, columns], order=1, mode="nearest")
            for channel in range(channels)
        ]
        return jnp.stack(resampled, axis=-1)

    return jax.vmap(resample)(images, coordinates)

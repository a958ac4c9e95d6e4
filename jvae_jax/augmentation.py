"""Small distortions of images, after which a character is still the same."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.ndimage import map_coordinates

from jvae_jax import sampling
from jvae_jax.types import Images, PRNGKey

_SHEAR, _SHIFT = 0.15, 1 / 16


def random_affine(key: PRNGKey, images: Images) -> Images:
    """Images sheared, scaled and turned by up to 15 %, and shifted by up to a sixteenth.

    Args:
        key: one key, or one for each example.
        images: of any shape.

    Returns:
        As many of the same shape; what comes in from outside is as the border.
    """
    batch, height, width, channels = images.shape
    split = jax.random.split if key.ndim == 0 else jax.vmap(jax.random.split, out_axes=1)
    matrix_key, shift_key = split(key)
    matrix = sampling.uniform(matrix_key, (batch, 2, 2), _SHEAR)
    size = jnp.array([height, width])
    shift = size * sampling.uniform(shift_key, (batch, 2), _SHIFT)
    places = jnp.stack(jnp.meshgrid(*map(jnp.arange, (height, width)), indexing="ij"), axis=-1)
    centred = places - (size - 1) / 2
    moved = places + jnp.einsum("nij,hwj->nhwi", matrix, centred) + shift[:, None, None]

    def at(image: Array, places: Array) -> Array:
        rows, columns = jnp.moveaxis(places, -1, 0)
        sampled = [
            map_coordinates(image[..., channel], [rows, columns], order=1, mode="nearest")
            for channel in range(channels)
        ]
        return jnp.stack(sampled, axis=-1)

    return jax.vmap(at)(images, moved)

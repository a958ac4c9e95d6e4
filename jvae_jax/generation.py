"""Characters from a trained model: arrays in, arrays out.

Images that come out are floats in [0, 1], images that go in uint8, as in a data set.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from jvae_jax.batches import BATCH, map_batches
from jvae_jax.networks import Autoencoder
from jvae_jax.training import Variables, scale
from jvae_jax.types import Images, Pixels


@partial(jax.jit, static_argnums=0)
def decode(
    model: Autoencoder,
    variables: Variables,
    z: Float[Array, "batch latents"],
    labels: Int[Array, "batch"] | None = None,
) -> Images:
    """Draws each z as the character of its label.

    Args:
        model: any of the six objectives' models.
        variables: its parameters and statistics.
        z: styles.
        labels: which c; None for a model without classes.

    Raises:
        ValueError: if labels are given to a model without classes, or are missing for one with.
    """
    if (labels is None) != (model.classes == 0):
        raise ValueError(
            "this model has no classes, so it takes no labels"
            if model.classes == 0
            else f"this model has {model.classes} classes, so it needs labels"
        )
    if labels is not None:
        z = jnp.concatenate([z, jax.nn.one_hot(labels, model.classes)], axis=-1)
    draw = nn.apply(Autoencoder.decode, model)
    return map_batches(lambda latents: jax.nn.sigmoid(draw(variables, latents)), BATCH, z)


def sample(
    model: Autoencoder,
    variables: Variables,
    key: Array,
    *,
    labels: Int[Array, "rows"] | None = None,
    rows: int = 1,
    columns: int,
) -> Float[Array, "rows columns height width channels"]:
    """A sheet of characters: rows fix c, columns fix z (the paper's figure 2).

    Args:
        model: any of the six objectives' models.
        variables: its parameters and statistics.
        key: draws one z ~ N(0, 1) for each column.
        labels: the c of each row; None for a model without classes, which gives each image a z.
        rows: how many, where there are no labels.
        columns: how many styles.
    """
    if labels is None:
        z = jax.random.normal(key, (rows * columns, model.latents))
        every_label = None
    else:
        rows = len(labels)
        z = jnp.tile(jax.random.normal(key, (columns, model.latents)), (rows, 1))
        every_label = jnp.repeat(labels, columns)
    images = decode(model, variables, z, every_label)
    return images.reshape(rows, columns, *model.image_shape)


@partial(jax.jit, static_argnums=0)
def reconstruct(
    model: Autoencoder,
    variables: Variables,
    images: Pixels,
) -> Images:
    """Images redrawn from the mean z and the likeliest c that the encoder reads."""
    return jax.nn.sigmoid(nn.apply(Autoencoder.__call__, model)(variables, scale(images)))


def traverse(
    model: Autoencoder,
    variables: Variables,
    z: Float[Array, "latents"],
    values: Float[Array, "steps"],
    label: int | None = None,
) -> Float[Array, "latents steps height width channels"]:
    """One character with each dimension of z set to each of ``values`` in turn.

    Args:
        model: any of the six objectives' models.
        variables: its parameters and statistics.
        z: the style from which one dimension at a time departs.
        values: what the dimension is set to; the prior's standard deviation is 1.
        label: which c; None for a model without classes.
    """
    latents, steps = len(z), len(values)
    vary = jnp.eye(latents, dtype=bool)[:, None]
    styles = jnp.where(vary, values[:, None], z).reshape(latents * steps, latents)
    labels = None if label is None else jnp.full(len(styles), label)
    return decode(model, variables, styles, labels).reshape(latents, steps, *model.image_shape)

"""Characters from a trained model: arrays in, arrays out.

Images that come out are floats in [0, 1], images that go in uint8, as in a data set.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.models.inference import BATCH, map_batches, scale
from jvae_jax.types import Images, Pixels, Posterior, Variables


@partial(jax.jit, static_argnums=0)
def _decode_latents(
    model: Autoencoder, variables: Variables, latents: Float[Array, "batch inputs"]
) -> Images:
    """Draws what the decoder makes of z, beside c where the model has classes.

    Args:
        model: any of the six objectives' models.
        variables: its parameters and statistics.
        latents: z and then c, which is one-hot for a character, and in between for one in between.
    """
    logits = nn.apply(Autoencoder.decode, model)
    return map_batches(lambda batch: jax.nn.sigmoid(logits(variables, batch)), BATCH, latents)


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
    return _decode_latents(model, variables, _joined(model, z, labels))


@partial(jax.jit, static_argnums=0)
def encode(model: Autoencoder, variables: Variables, images: Pixels) -> Posterior:
    """What the encoder says of images: of each, the mean z is its style.

    Args:
        model: any of the six objectives' models.
        variables: its parameters and statistics.
        images: uint8. ``logits`` are of their labels, where the model has classes.
    """
    infer = nn.apply(Autoencoder.infer, model)
    return map_batches(lambda batch: infer(variables, scale(batch)), BATCH, jnp.asarray(images))


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


def reconstruct(model: Autoencoder, variables: Variables, images: Pixels) -> Images:
    """Images redrawn from the mean z and the likeliest c that the encoder reads."""
    found = encode(model, variables, images)
    labels = None if found.logits is None else jnp.argmax(found.logits, axis=-1)
    return decode(model, variables, found.mean, labels)


def restyle(
    model: Autoencoder,
    variables: Variables,
    images: Pixels,
    labels: Int[Array, "columns"],
) -> Float[Array, "batch columns height width channels"]:
    """Characters in the hand of others: a row for each image, a column for each label.

    Args:
        model: one that has classes.
        variables: its parameters and statistics.
        images: uint8, of which the mean z is the style.
        labels: which characters to draw in it.

    Raises:
        ValueError: if the model has no classes.
    """
    styles = encode(model, variables, images).mean
    drawn = decode(
        model,
        variables,
        jnp.repeat(styles, len(labels), axis=0),
        jnp.tile(jnp.asarray(labels), len(styles)),
    )
    return drawn.reshape(len(styles), len(labels), *model.image_shape)


def interpolate(
    model: Autoencoder,
    variables: Variables,
    z: Float[Array, "stations latents"],
    labels: Int[Array, "stations"] | None = None,
    *,
    steps: int,
) -> Float[Array, "steps height width channels"]:
    """Characters on the way from one style and character to the next, in straight lines.

    Args:
        model: any of the six objectives' models.
        variables: its parameters and statistics.
        z: the styles to go through, two or more; all the same to stay in one.
        labels: the characters to go through, likewise; None for a model without classes.
        steps: how many, both ends among them.

    Raises:
        ValueError: as :func:`decode`.
    """
    stations = _joined(model, z, labels)
    places = jnp.linspace(0, len(stations) - 1, steps)
    along = jax.vmap(jnp.interp, in_axes=(None, None, 1), out_axes=1)
    return _decode_latents(model, variables, along(places, jnp.arange(len(stations)), stations))


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


def _joined(
    model: Autoencoder, z: Float[Array, "batch latents"], labels: Int[Array, "batch"] | None
) -> Float[Array, "batch inputs"]:
    """z, and where there are classes the one-hot c of each label beside it."""
    if (labels is None) != (model.classes == 0):
        raise ValueError(
            "this model has no classes, so it takes no labels"
            if model.classes == 0
            else f"this model has {model.classes} classes, so it needs labels"
        )
    if labels is None:
        return z
    return jnp.concatenate([z, jax.nn.one_hot(labels, model.classes)], axis=-1)

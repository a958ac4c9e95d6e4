"""Generation of characters and inference, as pure functions of a model and its variables.

Input images are uint8 as in datasets, output images are floats in [0, 1]. z is the style of a
character, the label (c) its class. A model without classes takes no labels. Arrays may be numpy
arrays or nested lists. Under ``jit``, the values of labels aren't checked.
"""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.models.inference import EVAL_BATCH_SIZE, map_batches, scale_pixels
from jvae_jax.types import (
    Images,
    Labels,
    LabelsLike,
    LatentsLike,
    Pixels,
    PixelsLike,
    Posterior,
    Variables,
)
from jvae_jax.validation import as_class_indices, as_pixels


def encode(model: Autoencoder, variables: Variables, images: PixelsLike) -> Posterior:
    """Infers the posterior of images.

    Args:
        model: model of any objective.
        variables: parameters and batch statistics of the model.
        images: uint8, (batch, height, width, channels).

    Returns:
        Mean and log-variance of z, (batch, latents), and class logits, (batch, classes), or None
        for a model without classes.

    Raises:
        ValueError: if the images aren't uint8 or don't have the model's shape.
    """
    return _encode(model, variables, as_pixels(images, image_shape=model.image_shape))


@partial(jax.jit, static_argnums=0)
def _encode(model: Autoencoder, variables: Variables, images: Pixels) -> Posterior:
    infer = nn.apply(Autoencoder.infer, model)
    return map_batches(
        lambda batch: infer(variables, scale_pixels(batch)), EVAL_BATCH_SIZE, jnp.asarray(images)
    )


def decode(
    model: Autoencoder,
    variables: Variables,
    z: LatentsLike,
    labels: LabelsLike | None = None,
) -> Images:
    """Generates the character of each label in the style of each z.

    Args:
        model: model of any objective.
        variables: parameters and batch statistics of the model.
        z: styles, (batch, latents).
        labels: class indices, (batch,); None for a model without classes.

    Returns:
        Values in [0, 1], (batch, height, width, channels).

    Raises:
        ValueError: if labels are missing, given to a model without classes, or invalid, or a shape
            doesn't suit the model.
    """
    return _decode_latents(model, variables, _concatenate_latents(model, z, labels))


def sample(
    model: Autoencoder,
    variables: Variables,
    key: Array,
    *,
    labels: LabelsLike | None = None,
    rows: int = 1,
    columns: int,
) -> Float[Array, "rows columns height width channels"]:
    """Generates a grid of characters: each row has one label, each column one z (figure 2).

    Args:
        model: model of any objective.
        variables: parameters and batch statistics of the model.
        key: key of the styles, z ~ N(0, 1).
        labels: class index of each row, (rows,). None for a model without classes, for which a
            separate z is drawn for every image.
        rows: number of rows of a model without classes; otherwise the number of labels.
        columns: number of columns.

    Returns:
        Values in [0, 1], (rows, columns, height, width, channels).

    Raises:
        ValueError: if labels are missing, given to a model without classes, or invalid, or a shape
            doesn't suit the model.
    """
    indices = _as_labels(model, labels)
    rows = rows if indices is None else len(indices)
    if min(rows, columns) < 1:
        raise ValueError(f"rows and columns must be above 0, got {rows} and {columns}")
    if indices is None:
        z = jax.random.normal(key, (rows * columns, model.latents), jnp.float32)
        repeated_labels = None
    else:
        styles = jax.random.normal(key, (columns, model.latents), jnp.float32)
        z = jnp.tile(styles, (rows, 1))
        repeated_labels = jnp.repeat(indices, columns)
    images = decode(model, variables, z, repeated_labels)
    return images.reshape(rows, columns, *model.image_shape)


def reconstruct(model: Autoencoder, variables: Variables, images: PixelsLike) -> Images:
    """Reconstructs images from the posterior mean of z and the most probable label.

    Args:
        model: model of any objective.
        variables: parameters and batch statistics of the model.
        images: uint8, (batch, height, width, channels).

    Returns:
        Values in [0, 1], (batch, height, width, channels).
    """
    posterior = encode(model, variables, images)
    labels = None if posterior.logits is None else jnp.argmax(posterior.logits, axis=-1)
    return decode(model, variables, posterior.mean, labels)


def restyle(
    model: Autoencoder,
    variables: Variables,
    images: PixelsLike,
    labels: LabelsLike,
) -> Float[Array, "batch columns height width channels"]:
    """Generates other characters in the style of images (style transfer).

    Args:
        model: model with classes.
        variables: parameters and batch statistics of the model.
        images: uint8, (batch, height, width, channels); the posterior mean of z is the style.
        labels: class indices of the generated characters, (columns,).

    Returns:
        Values in [0, 1], (batch, columns, height, width, channels): one row per image, one column
        per label.

    Raises:
        ValueError: if the model has no classes, the images aren't uint8 of its shape, or a label is
            invalid.
    """
    indices = _as_labels(model, labels)
    if indices is None:
        raise ValueError("a model without classes can't transfer a style to other classes")
    styles = encode(model, variables, images).mean
    restyled = decode(
        model,
        variables,
        jnp.repeat(styles, len(indices), axis=0),
        jnp.tile(indices, len(styles)),
    )
    return restyled.reshape(len(styles), len(indices), *model.image_shape)


def interpolate(
    model: Autoencoder,
    variables: Variables,
    z: LatentsLike,
    labels: LabelsLike | None = None,
    *,
    steps: int,
) -> Float[Array, "steps height width channels"]:
    """Generates characters along straight lines between waypoints in z and c.

    Args:
        model: model of any objective.
        variables: parameters and batch statistics of the model.
        z: styles of two or more waypoints, (waypoints, latents).
        labels: class indices of the waypoints, (waypoints,); None for a model without classes.
        steps: number of images, 2 or more, including both ends.

    Returns:
        Values in [0, 1], (steps, height, width, channels).

    Raises:
        ValueError: if labels are missing, given to a model without classes, or invalid, or a shape
            doesn't suit the model.
    """
    waypoints = _concatenate_latents(model, z, labels)
    if min(len(waypoints), steps) < 2:
        raise ValueError(
            f"z and steps must be two or more, got {len(waypoints)} styles and {steps} steps"
        )
    positions = jnp.linspace(0, len(waypoints) - 1, steps, dtype=jnp.float32)
    interpolate_columns = jax.vmap(jnp.interp, in_axes=(None, None, 1), out_axes=1)
    indices = jnp.arange(len(waypoints), dtype=jnp.float32)
    latents = interpolate_columns(positions, indices, waypoints)
    return _decode_latents(model, variables, latents)


def traverse(
    model: Autoencoder,
    variables: Variables,
    z: Float[Array | np.ndarray, "latents"] | Sequence[float],
    values: Float[Array | np.ndarray, "steps"] | Sequence[float],
    label: int | None = None,
) -> Float[Array, "latents steps height width channels"]:
    """Generates one character with each dimension of z set to each value (latent traversal).

    Args:
        model: model of any objective.
        variables: parameters and batch statistics of the model.
        z: style at which the other dimensions are held, (latents,).
        values: values of the varied dimension, (steps,), in standard deviations of the prior.
        label: class index; None for a model without classes.

    Returns:
        Values in [0, 1], (latents, steps, height, width, channels).

    Raises:
        ValueError: if the label is missing, given to a model without classes, or invalid, or a
            shape doesn't suit the model.
    """
    z, values = jnp.asarray(z, jnp.float32), jnp.asarray(values, jnp.float32)
    if z.ndim != 1 or values.ndim != 1:
        raise ValueError(
            f"z must be ({model.latents},) and values one-dimensional, got shapes {z.shape} and "
            f"{values.shape}"
        )
    latents, steps = len(z), len(values)
    varied = jnp.eye(latents, dtype=bool)[:, None]
    styles = jnp.where(varied, values[:, None], z).reshape(latents * steps, latents)
    labels = None if label is None else [label] * len(styles)
    return decode(model, variables, styles, labels).reshape(latents, steps, *model.image_shape)


@partial(jax.jit, static_argnums=0)
def _decode_latents(
    model: Autoencoder, variables: Variables, latents: Float[Array, "batch inputs"]
) -> Images:
    """Decodes z concatenated with one-hot or interpolated c."""
    logits = nn.apply(Autoencoder.decode, model)
    return map_batches(
        lambda batch: jax.nn.sigmoid(logits(variables, batch)), EVAL_BATCH_SIZE, latents
    )


def _concatenate_latents(
    model: Autoencoder,
    z: LatentsLike,
    labels: LabelsLike | None,
) -> Float[Array, "batch inputs"]:
    """Concatenates z with the one-hot labels of a model with classes, in float32."""
    z = jnp.asarray(z, jnp.float32)
    if z.ndim != 2 or z.shape[1] != model.latents:
        raise ValueError(f"z must be (batch, {model.latents}), as the model's, got shape {z.shape}")
    indices = _as_labels(model, labels, len(z))
    if indices is None:
        return z
    one_hot = jax.nn.one_hot(indices, model.classes, dtype=jnp.float32)
    return jnp.concatenate([z, one_hot], axis=-1)


def _as_labels(
    model: Autoencoder, labels: LabelsLike | None, examples: int | None = None
) -> Labels | None:
    """Converts labels to an array; None for a model without classes."""
    if (labels is None) != (model.classes == 0):
        raise ValueError(
            "a model without classes takes no labels"
            if model.classes == 0
            else f"a model with {model.classes} classes requires labels"
        )
    if labels is None:
        return None
    return jnp.asarray(as_class_indices(labels, examples, classes=model.classes))

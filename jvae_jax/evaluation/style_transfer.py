"""Style transfer metrics: class accuracy and style preservation of restyled images."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jvae_jax.data import Dataset
from jvae_jax.evaluation.classifier import EvalClassifier
from jvae_jax.generation.characters import encode, restyle
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.models.inference import to_pixels
from jvae_jax.types import Variables

_MIN_STD = 0.1
"""Smallest standard deviation over images of a latent's mean for which R^2 is reported."""


def style_transfer_metrics(
    model: Autoencoder,
    variables: Variables,
    eval_classifier: EvalClassifier,
    dataset: Dataset,
    key: Array,
    *,
    category_to_class: Sequence[int] | None = None,
    characters: int = 10_000,
) -> dict[str, Any]:
    """Restyles random test images as every class, then classifies and re-encodes the results.

    Args:
        model: an autoencoder with classes.
        variables: its parameters and batch statistics.
        eval_classifier: evaluation classifier of the dataset.
        dataset: the model's training data.
        key: random key of the choice of test images.
        category_to_class: class of each category c; None if they are the same.
        characters: approximate number of restyled images.

    Returns:
        - ``style_transfer_accuracy``: fraction of restyled images classified as the requested class
        - ``style_r2``: coefficient of determination R^2 between z of the original and z re-encoded
          from the restyled image, pooled over latents; 1 if they agree, 0 for a prediction as good
          as the mean, negative if worse. Left out, with the two below, if no latent's mean varies.
        - ``style_r2_shuffled``: the same between randomly paired images, a baseline
        - ``style_r2_per_latent``: R^2 of each latent, None if its mean hardly varies
    """
    # sklearn takes a second to import.
    from sklearn.metrics import r2_score

    image_key, shuffle_key = jax.random.split(key)
    count = min(max(2, characters // model.classes), len(dataset.test_images))
    indices = np.asarray(jax.random.permutation(image_key, len(dataset.test_images)))[:count]
    images = dataset.test_images[indices]
    restyled = restyle(model, variables, images, jnp.arange(model.classes))
    restyled = np.asarray(restyled).reshape(-1, *model.image_shape)
    requested = np.tile(np.arange(model.classes), count)
    if category_to_class is not None:
        requested = np.asarray(category_to_class)[requested]
    predicted, _ = eval_classifier(jnp.asarray(restyled))
    style = np.asarray(encode(model, variables, images).mean).repeat(model.classes, axis=0)
    pixels = to_pixels(restyled)
    encoded = np.asarray(encode(model, variables, pixels).mean, np.float64)
    shuffled = encoded[np.asarray(jax.random.permutation(shuffle_key, len(style)))]
    metrics: dict[str, Any] = {
        "style_transfer_accuracy": float(np.mean(np.asarray(predicted) == requested))
    }
    varying = style.std(axis=0) >= _MIN_STD
    style = style.astype(np.float64)
    if varying.any():
        per_latent = np.full(len(varying), None)
        per_latent[varying] = r2_score(
            style[:, varying], encoded[:, varying], multioutput="raw_values"
        )
        metrics |= {
            "style_r2": float(r2_score(style, encoded, multioutput="variance_weighted")),
            "style_r2_shuffled": float(r2_score(style, shuffled, multioutput="variance_weighted")),
            "style_r2_per_latent": per_latent.tolist(),
        }
    return metrics

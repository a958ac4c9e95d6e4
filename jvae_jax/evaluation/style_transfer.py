"""Does a character in someone's hand stay that character, and keep that hand?"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jvae_jax.data import Dataset
from jvae_jax.evaluation.classifier import EvalClassifier
from jvae_jax.generation.characters import encode, restyle
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.types import Variables

_SPREAD = 0.1
"""Standard deviation of a dimension's means from which on it holds any style."""


def restyled(
    model: Autoencoder,
    variables: Variables,
    eval_classifier: EvalClassifier,
    dataset: Dataset,
    key: Array,
    *,
    category_to_class: Sequence[int] | None = None,
    characters: int = 10_000,
) -> dict[str, Any]:
    """Redraws test images as every character in their own hand, and reads what came out.

    Args:
        model: one that has classes.
        variables: its parameters and statistics.
        eval_classifier: of the same data.
        dataset: what the model was trained on.
        key: chooses the test images.
        category_to_class: the class that each c means, where c is unsupervised.
        characters: how many to draw, about.

    Returns:
        - ``style_transfer_accuracy``: the share that the judge reads as the class asked for
        - if any dimension of z holds a style, ``style_r2``: R^2 of the style read again from the
          characters, as a prediction of the one they were drawn in: 1 if it is the same, 0 if it
          tells no more than the mean would, below 0 if less
        - ``style_r2_shuffled``: the same of pairs that don't belong together
        - ``style_r2_per_latent``; None for those that hold no style
    """
    choosing, shuffling = jax.random.split(key)
    count = min(max(2, characters // model.classes), len(dataset.test_images))
    chosen = np.asarray(jax.random.permutation(choosing, len(dataset.test_images)))[:count]
    images = dataset.test_images[chosen]
    drawn = restyle(model, variables, images, jnp.arange(model.classes))
    drawn = np.asarray(drawn).reshape(-1, *model.image_shape)
    asked = np.tile(np.arange(model.classes), count)
    if category_to_class is not None:
        asked = np.asarray(category_to_class)[asked]
    verdicts, _ = eval_classifier(jnp.asarray(drawn))
    style = np.asarray(encode(model, variables, images).mean).repeat(model.classes, axis=0)
    pixels = (255 * drawn).round().astype(np.uint8)
    style_again = np.asarray(encode(model, variables, pixels).mean)
    others = np.asarray(jax.random.permutation(shuffling, len(style)))
    found: dict[str, Any] = {
        "style_transfer_accuracy": float(np.mean(np.asarray(verdicts) == asked))
    }
    held = style.std(axis=0) >= _SPREAD
    if held.any():
        kept = iter(r_squared(style[:, held], style_again[:, held]).tolist())
        found |= {
            "style_r2": _pooled(style, style_again),
            "style_r2_shuffled": _pooled(style, style_again[others]),
            "style_r2_per_latent": [next(kept) if holds else None for holds in held],
        }
    return found


def r_squared(
    truth: Float[np.ndarray, "examples latents"], prediction: Float[np.ndarray, "examples latents"]
) -> Float[np.ndarray, "latents"]:
    """1 - squared error / variance, the coefficient of determination, of each dimension."""
    return 1 - _squares(truth, prediction) / _squares(truth, truth.mean(axis=0))


def _pooled(truth: np.ndarray, prediction: np.ndarray) -> float:
    """The same of all dimensions together, so that each counts by its variance."""
    errors, variances = _squares(truth, prediction), _squares(truth, truth.mean(axis=0))
    return float(1 - errors.sum() / variances.sum())


def _squares(truth: np.ndarray, prediction: np.ndarray) -> Float[np.ndarray, "latents"]:
    return ((truth - prediction).astype(np.float64) ** 2).sum(axis=0)

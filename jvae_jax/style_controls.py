"""Control of the style by name: slant in degrees, thickness, width and height in pixels.

A linear map for each class, from z to the morphology of the decoded character, says how to change
z; the character is then decoded and measured again, and what is missing is corrected.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jvae_jax.data import Dataset
from jvae_jax.evaluation.classifier import EvalClassifier
from jvae_jax.evaluation.morphology import measure
from jvae_jax.generation import decode, encode
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.models.inference import to_pixels
from jvae_jax.types import Variables

FACTORS: tuple[str, ...] = ("slant", "thickness", "width", "height")
"""Names of the controls: fields of :class:`~jvae_jax.evaluation.morphology.Morphology`."""
UNITS = ("degrees", "pixels", "pixels", "pixels")
MIN_R2 = 0.8
"""R^2 of requested and measured values below which a factor isn't controlled."""

_IMAGES = 4000
"""Training images from which the maps are fitted."""
_REQUESTS = 500
"""Random requests for each factor, by which R^2 is measured."""
_RANGE = (0.05, 0.95)
"""Quantiles of a factor within a class between which values may be requested."""
_STEPS = 4
"""Corrections of z, each after decoding and measuring."""
_MAX_CHANGE = 1.0
"""Largest change of a dimension of z by one correction."""
_HOLD = 0.2
"""Weight of a factor that isn't requested, which should stay, against 1 of one that is."""
_MIN_SPREAD = 0.5
"""Least standard deviation, in degrees or pixels, to which a factor is scaled; otherwise noise of a
factor that hardly varies would be corrected."""
_RIDGE = 0.01
"""Ridge penalty of a correction, relative to factors with a standard deviation of 1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StyleControls:
    """Linear maps from z to the morphology of decoded characters, one for each class.

    Factors are in the order of ``FACTORS``: slant in degrees, and thickness, width and height in
    pixels.

    Attributes:
        weights: change of each factor with each dimension of z.
        intercepts: each factor at z = 0.
        lowest, highest: range of each factor in each class: the 5 % and 95 % quantiles of decoded
            training images; not a number for a class without any.
        r2: R^2 within classes of requested and measured values, for each factor; at least -1.
    """

    weights: Float[np.ndarray, "classes factors latents"]
    intercepts: Float[np.ndarray, "classes factors"]
    lowest: Float[np.ndarray, "classes factors"]
    highest: Float[np.ndarray, "classes factors"]
    r2: Float[np.ndarray, "factors"]

    @property
    def controlled(self) -> tuple[str, ...]:
        """Names of the factors that the model controls."""
        return tuple(
            name for name, r2 in zip(FACTORS, self.r2.tolist(), strict=True) if r2 >= MIN_R2
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the values as nested lists, with None where they aren't a number."""
        missing: Any = None
        lists = {
            name: np.where(np.isnan(value), missing, np.round(value, 6)).tolist()
            for name, value in vars(self).items()
        }
        return {"factors": list(FACTORS), **lists}

    @property
    def fitted_classes(self) -> np.ndarray:
        """Indices of the classes of which there were training images."""
        return np.flatnonzero(np.isfinite(self.lowest).all(axis=1))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "StyleControls":
        """Restores the values of :meth:`to_json`.

        Raises:
            KeyError: if one is missing.
            TypeError: if one isn't a list of numbers.
            ValueError: if the factors are others.
        """
        if values["factors"] != list(FACTORS):
            raise ValueError(f"factors must be {', '.join(FACTORS)}, got {values['factors']}")
        names = ("weights", "intercepts", "lowest", "highest", "r2")
        return cls(**{name: np.asarray(values[name], np.float64) for name in names})


def fit_style_controls(
    model: Autoencoder, variables: Variables, dataset: Dataset, key: Array
) -> StyleControls:
    """Fits the maps to decoded training images, and measures how well they control the style.

    Args:
        model: model with classes, of grey images.
        variables: its parameters and batch statistics.
        dataset: the model's training data. Labels aren't used: the class is the most probable c.
        key: random key of the choice of images and of the requests.

    Raises:
        ValueError: if the model has no classes, or its images aren't grey.
    """
    if not model.classes:
        raise ValueError("a model without classes has no style controls")
    if model.image_shape[-1] != 1:
        raise ValueError("style controls need a model of grey images, this one's are coloured")
    image_key, request_key = jax.random.split(key)
    order = np.asarray(jax.random.permutation(image_key, len(dataset.train_images)))
    posterior = encode(model, variables, dataset.train_images[np.sort(order[:_IMAGES])])
    z, labels = np.asarray(posterior.mean), np.asarray(posterior.logits).argmax(axis=-1)
    factors = _measure_decoded(model, variables, z, labels)
    has_ink = np.isfinite(factors).all(axis=1)
    weights = np.zeros((model.classes, len(FACTORS), model.latents))
    intercepts = np.zeros((model.classes, len(FACTORS)))
    lowest, highest = np.full((2, *intercepts.shape), np.nan)
    for label in range(model.classes):
        members = has_ink & (labels == label)
        if members.any():
            inputs, outputs = z[members], factors[members]
            mean, centre = outputs.mean(axis=0), inputs.mean(axis=0)
            # A ridge penalty as of one more example in each direction.
            gram = (inputs - centre).T @ (inputs - centre) + np.eye(model.latents)
            weights[label] = np.linalg.solve(gram, (inputs - centre).T @ (outputs - mean)).T
            intercepts[label] = mean - weights[label] @ centre
            lowest[label], highest[label] = np.quantile(outputs, _RANGE, axis=0)
    controls = StyleControls(
        weights=weights,
        intercepts=intercepts,
        lowest=lowest,
        highest=highest,
        r2=np.zeros(len(FACTORS)),
    )
    for index, name in enumerate(FACTORS):
        adjusted, labels, values = _requested(model, variables, controls, request_key, name)
        measured = _measure_decoded(model, variables, adjusted, labels)[:, index]
        ranges = (highest - lowest)[labels, index]
        variance = np.mean(ranges**2) / 12  # of uniform values
        if variance > 0:
            # A character that lost its ink misses its value by the whole range.
            errors = np.where(np.isfinite(measured), measured - values, ranges)
            controls.r2[index] = max(-1, 1 - np.mean(errors**2) / variance)
    return controls


def adjust_style(
    model: Autoencoder,
    variables: Variables,
    controls: StyleControls,
    z: Float[np.ndarray, "batch latents"],
    labels: Int[np.ndarray, "batch"],
    requested: Mapping[str, Float[np.ndarray, "batch"]],
) -> Float[np.ndarray, "batch latents"]:
    """Changes z so that decoded characters have a requested slant, thickness, width or height.

    The other factors stay as they are. The change is the smallest that does this by the linear map
    of the class; four times, the characters are decoded and measured, and z is corrected.

    Args:
        model: model with classes, of grey images.
        variables: its parameters and batch statistics.
        controls: its style controls.
        z: styles, (batch, latents).
        labels: class indices, (batch,).
        requested: values of factors, (batch,) each, in degrees or pixels. They aren't clipped.

    Returns:
        Styles, (batch, latents).
    """
    # In units of the standard deviation of uniform values within the range.
    spread = np.nanmean(controls.highest - controls.lowest, axis=0) / np.sqrt(12)
    scale = spread.clip(_MIN_SPREAD) / [1 if name in requested else _HOLD for name in FACTORS]
    weights = controls.weights[labels] / scale[:, None]
    gram = weights @ weights.swapaxes(1, 2) + _RIDGE * np.eye(len(FACTORS))
    inverses = weights.swapaxes(1, 2) @ np.linalg.inv(gram)
    measured = _measure_decoded(model, variables, z, labels)
    target = measured.copy()
    for name, values in requested.items():
        target[:, FACTORS.index(name)] = values
    for step in range(_STEPS):
        if step:
            measured = _measure_decoded(model, variables, z, labels)
        # A character without ink has no measures and stays as it is.
        missing = np.nan_to_num((target - measured) / scale)
        change = (inverses @ missing[..., None])[..., 0]
        z = z + change.clip(-_MAX_CHANGE, _MAX_CHANGE)
    return z


def style_control_metrics(
    model: Autoencoder,
    variables: Variables,
    controls: StyleControls,
    key: Array,
    eval_classifier: EvalClassifier | None = None,
    *,
    category_to_class: Sequence[int] | None = None,
) -> dict[str, dict[str, float]]:
    """Returns how well factors are controlled, by the factor's name.

    Args:
        model: model with classes, of grey images.
        variables: its parameters and batch statistics.
        controls: its style controls.
        key: random key of the requests.
        eval_classifier: evaluation classifier of the same data.
        category_to_class: class of each category c; None if they are the same.

    Returns:
        - ``style_control_r2``: R^2 within classes of requested and measured values
        - with a classifier, ``style_control_conditional_accuracy``: fraction of characters
          classified as the requested class, at random values within the range
    """
    r2: dict[str, float] = dict(zip(FACTORS, controls.r2.tolist(), strict=True))
    metrics = {"style_control_r2": r2}
    if eval_classifier is not None:
        accuracies: dict[str, float] = {}
        for name in FACTORS:
            adjusted, labels, _ = _requested(model, variables, controls, key, name)
            images = decode(model, variables, adjusted, labels)
            predicted = np.asarray(eval_classifier.probabilities(images)).argmax(axis=-1)
            classes = labels if category_to_class is None else np.take(category_to_class, labels)
            accuracies[name] = float(np.mean(predicted == classes))
        metrics["style_control_conditional_accuracy"] = accuracies
    return metrics


def _requested(
    model: Autoencoder, variables: Variables, controls: StyleControls, key: Array, name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Adjusts random styles to random values of a factor; returns z, labels and values."""
    z_key, class_key, value_key = jax.random.split(key, 3)
    z = np.asarray(jax.random.normal(z_key, (_REQUESTS, model.latents)))
    labels = np.asarray(jax.random.choice(class_key, controls.fitted_classes, (_REQUESTS,)))
    index = FACTORS.index(name)
    low, high = controls.lowest[labels, index], controls.highest[labels, index]
    values = low + np.asarray(jax.random.uniform(value_key, (_REQUESTS,))) * (high - low)
    return adjust_style(model, variables, controls, z, labels, {name: values}), labels, values


def _measure_decoded(
    model: Autoencoder,
    variables: Variables,
    z: Float[np.ndarray, "batch latents"],
    labels: Int[np.ndarray, "batch"],
) -> Float[np.ndarray, "batch factors"]:
    """Decodes characters and measures the factors; not a number without ink."""
    images = to_pixels(np.asarray(decode(model, variables, z, labels)))
    morphology = measure(images)
    return np.stack([getattr(morphology, name) for name in FACTORS], axis=1)

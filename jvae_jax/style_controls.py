"""Control of the style by name: slant in degrees, thickness, width and height in pixels.

A quadratic map for each class, from z to the morphology of the decoded character, says how to
change z; the character is then decoded and measured again, and what is missing is corrected.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
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

_SAMPLES = 600
"""Samples of each class to which the maps are fitted."""
_IMAGES = 4000
"""Training images from which the ranges are taken."""
_REQUESTS = 500
"""Random requests for each factor, by which R^2 is measured."""
_RANGE = (0.05, 0.95)
"""Quantiles of a factor within a class between which values may be requested."""
_STEPS = 4
"""Corrections of z, each after decoding and measuring."""
_MAX_CHANGE = 1.0
"""Largest change of a dimension of z by one correction."""
_MARGIN = 1.0
"""Distance from 0 that z may reach, beyond the square root of its dimension."""
_HOLD = 0.2
"""Weight of a factor that isn't requested, which should stay, against 1 of one that is."""
_MIN_SPREAD = 0.5
"""Least standard deviation, in degrees or pixels, to which a factor is scaled; otherwise noise of a
factor that hardly varies would be corrected."""
_RIDGE = 0.01
"""Ridge penalty of a correction, relative to factors with a standard deviation of 1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StyleControls:
    """Quadratic maps from z to the morphology of decoded characters, one for each class.

    Factors are in the order of ``FACTORS``: slant in degrees, and thickness, width and height in
    pixels.

    Attributes:
        intercepts: each factor at z = 0.
        weights: change of each factor with each dimension of z at z = 0.
        quadratic: symmetric matrix of each factor's quadratic form in z.
        lowest, highest: range of each factor in each class: the 5 % and 95 % quantiles of decoded
            training images; not a number for a class without any.
        r2: R^2 within classes of requested and measured values, for each factor; at least -1.
        map_r2: the same where z is changed by the map alone, without decoding and measuring.
    """

    intercepts: Float[np.ndarray, "classes factors"]
    weights: Float[np.ndarray, "classes factors latents"]
    quadratic: Float[np.ndarray, "classes factors latents latents"]
    lowest: Float[np.ndarray, "classes factors"]
    highest: Float[np.ndarray, "classes factors"]
    r2: Float[np.ndarray, "factors"]
    map_r2: Float[np.ndarray, "factors"]

    def estimate(
        self, z: Float[np.ndarray, "batch latents"], labels: Int[np.ndarray, "batch"]
    ) -> Float[np.ndarray, "batch factors"]:
        """Returns the factors of decoded characters as the maps estimate them."""
        linear = np.einsum("bfl,bl->bf", self.weights[labels], z)
        quadratic = np.einsum("bflk,bl,bk->bf", self.quadratic[labels], z, z, optimize=True)
        return self.intercepts[labels] + linear + quadratic

    def jacobian(
        self, z: Float[np.ndarray, "batch latents"], labels: Int[np.ndarray, "batch"]
    ) -> Float[np.ndarray, "batch factors latents"]:
        """Returns the derivatives of :meth:`estimate` by z."""
        return self.weights[labels] + 2 * np.einsum("bflk,bk->bfl", self.quadratic[labels], z)

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
            name: np.where(np.isnan(value), missing, np.round(value, 4)).tolist()
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
        names = [field.name for field in fields(cls)]
        return cls(**{name: np.asarray(values[name], np.float64) for name in names})


def fit_style_controls(
    model: Autoencoder, variables: Variables, dataset: Dataset, key: Array
) -> StyleControls:
    """Fits the maps to samples, and measures how well they control the style.

    Args:
        model: model with classes, of grey images.
        variables: its parameters and batch statistics.
        dataset: the model's training data. Labels aren't used: the class is the most probable c.
        key: random key of the samples, of the choice of images and of the requests.

    Raises:
        ValueError: if the model has no classes, or its images aren't grey.
    """
    if not model.classes:
        raise ValueError("a model without classes has no style controls")
    if model.image_shape[-1] != 1:
        raise ValueError("style controls need a model of grey images, this one's are coloured")
    sample_key, image_key, request_key = jax.random.split(key, 3)
    order = np.asarray(jax.random.permutation(image_key, len(dataset.train_images)))
    posterior = encode(model, variables, dataset.train_images[np.sort(order[:_IMAGES])])
    z, labels = np.asarray(posterior.mean), np.asarray(posterior.logits).argmax(axis=-1)
    factors = _measure_decoded(model, variables, z, labels)
    has_ink = np.isfinite(factors).all(axis=1)
    shape = model.classes, len(FACTORS)
    lowest, highest = np.full((2, *shape), np.nan)
    for label in range(model.classes):
        members = has_ink & (labels == label)
        if members.any():
            lowest[label], highest[label] = np.quantile(factors[members], _RANGE, axis=0)
    controls = StyleControls(
        **_fit_maps(model, variables, sample_key),
        lowest=lowest,
        highest=highest,
        r2=np.zeros(len(FACTORS)),
        map_r2=np.zeros(len(FACTORS)),
    )
    for index, name in enumerate(FACTORS):
        for r2, by_map in ((controls.r2, False), (controls.map_r2, True)):
            adjusted, labels, values = _requested(
                model, variables, controls, request_key, name, by_map=by_map
            )
            measured = _measure_decoded(model, variables, adjusted, labels)[:, index]
            ranges = (highest - lowest)[labels, index]
            variance = np.mean(ranges**2) / 12  # of uniform values
            if variance > 0:
                # A character that lost its ink misses its value by the whole range.
                errors = np.where(np.isfinite(measured), measured - values, ranges)
                r2[index] = max(-1, 1 - np.mean(errors**2) / variance)
    return controls


def _fit_maps(model: Autoencoder, variables: Variables, key: Array) -> dict[str, np.ndarray]:
    """Fits the maps to decoded samples, by least squares for each class."""
    z = np.asarray(jax.random.normal(key, (model.classes * _SAMPLES, model.latents)), np.float64)
    labels = np.arange(model.classes).repeat(_SAMPLES)
    factors = _measure_decoded(model, variables, z.astype(np.float32), labels)
    rows, columns = np.triu_indices(model.latents)
    inputs = np.concatenate([np.ones((len(z), 1)), z, z[:, rows] * z[:, columns]], axis=1)
    solutions = np.zeros((model.classes, inputs.shape[1], len(FACTORS)))
    for label in range(model.classes):
        members = (labels == label) & np.isfinite(factors).all(axis=1)
        features = inputs[members]
        # A ridge penalty as of one more example in each direction.
        gram = features.T @ features + np.eye(features.shape[1])
        solutions[label] = np.linalg.solve(gram, features.T @ factors[members])
    intercepts, weights, products = np.split(
        solutions.swapaxes(1, 2), [1, 1 + model.latents], axis=2
    )
    quadratic = np.zeros((*weights.shape, model.latents))
    quadratic[..., rows, columns] = products
    quadratic = (quadratic + quadratic.swapaxes(2, 3)) / 2
    return {"intercepts": intercepts[..., 0], "weights": weights, "quadratic": quadratic}


def adjust_style(
    model: Autoencoder,
    variables: Variables,
    controls: StyleControls,
    z: Float[np.ndarray, "batch latents"],
    labels: Int[np.ndarray, "batch"],
    requested: Mapping[str, Float[np.ndarray, "batch"]],
    *,
    by_map: bool = False,
) -> Float[np.ndarray, "batch latents"]:
    """Changes z so that decoded characters have a requested slant, thickness, width or height.

    The other factors stay as they are. The change is the smallest that does this by the map of the
    class, linear around z; four times, the characters are decoded and measured, and z is corrected.

    Args:
        model: model with classes, of grey images.
        variables: its parameters and batch statistics.
        controls: its style controls.
        z: styles, (batch, latents).
        labels: class indices, (batch,).
        requested: values of factors, (batch,) each, in degrees or pixels. They aren't clipped.
        by_map: whether factors are those that the maps estimate instead of measured ones, which is
            faster and less accurate.

    Returns:
        Styles, (batch, latents).
    """
    # In units of the standard deviation of uniform values within the range.
    spread = np.nanmean(controls.highest - controls.lowest, axis=0) / np.sqrt(12)
    scale = spread.clip(_MIN_SPREAD) / [1 if name in requested else _HOLD for name in FACTORS]
    # Samples of the prior are seldom farther from 0, and the decoder hasn't seen such styles.
    norms = np.linalg.norm(z, axis=1, keepdims=True)
    radius = np.maximum(norms, np.sqrt(model.latents) + _MARGIN)

    def measure_style(z: np.ndarray) -> np.ndarray:
        if by_map:
            return controls.estimate(z, labels)
        return _measure_decoded(model, variables, z, labels)

    measured = measure_style(z)
    target = measured.copy()
    for name, values in requested.items():
        target[:, FACTORS.index(name)] = values
    for step in range(_STEPS):
        if step:
            measured = measure_style(z)
        # A character without ink has no measures and stays as it is.
        missing = np.nan_to_num((target - measured) / scale)
        slopes = controls.jacobian(z, labels) / scale[:, None]
        gram = slopes @ slopes.swapaxes(1, 2) + _RIDGE * np.eye(len(FACTORS))
        change = (slopes.swapaxes(1, 2) @ np.linalg.solve(gram, missing[..., None]))[..., 0]
        z = z + change.clip(-_MAX_CHANGE, _MAX_CHANGE)
        z = z * np.minimum(1, radius / np.linalg.norm(z, axis=1, keepdims=True).clip(1e-9))
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
    model: Autoencoder,
    variables: Variables,
    controls: StyleControls,
    key: Array,
    name: str,
    *,
    by_map: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Adjusts random styles to random values of a factor; returns z, labels and values."""
    z_key, class_key, value_key = jax.random.split(key, 3)
    z = np.asarray(jax.random.normal(z_key, (_REQUESTS, model.latents)))
    labels = np.asarray(jax.random.choice(class_key, controls.fitted_classes, (_REQUESTS,)))
    index = FACTORS.index(name)
    low, high = controls.lowest[labels, index], controls.highest[labels, index]
    values = low + np.asarray(jax.random.uniform(value_key, (_REQUESTS,))) * (high - low)
    z = adjust_style(model, variables, controls, z, labels, {name: values}, by_map=by_map)
    return z, labels, values


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

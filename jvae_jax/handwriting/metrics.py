"""How well a hand is kept in what is written in it."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jvae_jax.data import Dataset
from jvae_jax.evaluation.classifier import EvalClassifier
from jvae_jax.evaluation.morphology import measure
from jvae_jax.handwriting.hand import combine, estimate_hand
from jvae_jax.models.inference import to_pixels
from jvae_jax.numerics import default_numerics
from jvae_jax.style_controls import FACTORS
from jvae_jax.trained_model import TrainedModel

_HANDS = 200
_CHARACTERS = 10
"""Characters of the text of each hand, of random classes."""
_FONTS = 10
_GROUP = 5
"""Test images of near styles, which stand for the pictures of one writer."""


@default_numerics()
def hand_metrics(
    model: TrainedModel,
    dataset: Dataset,
    key: Array,
    eval_classifier: EvalClassifier | None = None,
) -> dict[str, object]:
    """Measures hands that are estimated from test images.

    A text of ten characters of random classes is drawn in each of 200 hands, of one picture each,
    and the hand of the text is estimated as it was from the picture. For hands of several
    pictures, test images are grouped with those of the nearest z; each in turn is left out, and the
    character of its class is drawn in the hand of the others, and in that of one of them.

    Args:
        model: model with classes.
        dataset: its data; test images are used.
        key: random key of the choice of images and classes.
        eval_classifier: evaluation classifier of the same data.

    Returns:
        - ``hand_r2``: R^2 of z between the hands and those of their texts, over all dimensions
        - ``hand_factor_r2``: of grey images, squared correlation of slant, thickness, width and
          height between the picture and the mean of the text, both relative to their class's mean
        - ``nearest_hand_accuracy``: fraction of texts whose own hand is the nearest of all
        - ``nearest_hand_chance``: that of random guesses
        - ``hand_distance_one_picture``, ``hand_distance_several_pictures``: mean distance in z of
          the character drawn in a hand of one, or of four, pictures from the one left out
        - with a classifier, of grey images and classes that are characters, ``font_accuracy``:
          fraction of the glyphs of ten fonts, rendered by Pillow, that are classified as requested

    Raises:
        ValueError: if the model has no classes, or there are fewer than two test images.
    """
    from scipy.spatial.distance import cdist

    if not model.has_classes:
        raise ValueError(f"{model.name or 'this model'} has no classes, so it draws no text")
    if len(dataset.test_labels) < 2:
        raise ValueError(
            f"hands are compared on 2 or more test images, got {len(dataset.test_labels)}"
        )
    image_key, class_key, order_key = jax.random.split(key, 3)
    images, labels = dataset.test_images, dataset.test_labels
    order = np.asarray(jax.random.permutation(image_key, len(images)))[:_HANDS]
    metrics = _text_metrics(model, images[order], labels[order], images, labels, class_key)
    z, variances = _posterior(model, images)
    groups = cdist(z[order], z).argsort(axis=1)[:, :_GROUP]
    groups = np.asarray(jax.random.permutation(order_key, groups, axis=1, independent=True))
    size = groups.shape[1]
    rolled = [np.roll(groups, -index, axis=1) for index in range(size)]
    others = np.stack(rolled, axis=1)[..., 1:].reshape(-1, size - 1)
    one = z[others[:, 0]]
    several = np.stack([combine(z[each], variances[each])[0] for each in others])
    target = groups.ravel()
    for name, styles in (("one_picture", one), ("several_pictures", several)):
        drawn = _redrawn(model, styles, labels[target])
        read, _ = _posterior(model, drawn)
        metrics[f"hand_distance_{name}"] = float(np.linalg.norm(read - z[target], axis=1).mean())
    names = model.category_names
    has_font = model.network.image_shape[2] == 1 and any(len(name) == 1 for name in names)
    if eval_classifier is not None and has_font:
        metrics["font_accuracy"] = _font_accuracy(model, images[order], key, eval_classifier)
    return metrics


def _font_accuracy(
    model: TrainedModel, pictures: np.ndarray, key: Array, eval_classifier: EvalClassifier
) -> float:
    from jvae_jax.handwriting.font import build_font, render_glyphs

    height, width, _ = model.network.image_shape
    framing = model.framing
    characters = {name: label for label, name in enumerate(model.category_names) if len(name) == 1}
    is_read = []
    for picture in pictures[:_FONTS]:
        hand = estimate_hand(model, picture[None])
        font = build_font(model, hand, key=key, alternates=1)
        glyphs = render_glyphs(font, list(characters), height, width)
        pixels = framing.background + glyphs * (framing.ink - framing.background)
        probabilities = eval_classifier.probabilities(jnp.asarray(pixels[..., None] / 255))
        predicted = np.asarray(probabilities).argmax(axis=1)
        is_read.append(predicted == list(characters.values()))
    return float(np.mean(is_read))


def _text_metrics(
    model: TrainedModel,
    pictures: np.ndarray,
    picture_labels: np.ndarray,
    images: np.ndarray,
    labels: np.ndarray,
    key: Array,
) -> dict[str, object]:
    from scipy.spatial.distance import cdist
    from sklearn.metrics import r2_score

    hands, _ = _posterior(model, pictures)
    shape = len(hands), _CHARACTERS
    classes = np.asarray(jax.random.randint(key, shape, 0, model.network.classes)).ravel()
    drawn = _redrawn(model, hands.repeat(_CHARACTERS, axis=0), classes)
    posterior = [values.reshape(*shape, -1) for values in _posterior(model, drawn)]
    texts = np.stack([combine(*text)[0] for text in zip(*posterior, strict=True)])
    distances = cdist(texts, hands)
    metrics: dict[str, object] = {
        "hand_r2": float(r2_score(hands, texts, multioutput="variance_weighted")),
        "nearest_hand_accuracy": float(np.mean(distances.argmin(axis=1) == np.arange(len(hands)))),
        "nearest_hand_chance": 1 / len(hands),
    }
    if model.network.image_shape[2] == 1:
        real = _relative_factors(images, labels, pictures, picture_labels)
        written = _relative_factors(drawn, classes, drawn, classes)
        means = np.nanmean(written.reshape(*shape, -1), axis=1)
        metrics["hand_factor_r2"] = {
            name: float(_correlation(real[:, index], means[:, index]) ** 2)
            for index, name in enumerate(FACTORS)
        }
    return metrics


def _redrawn(model: TrainedModel, z: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return to_pixels(np.asarray(model.decode(z.astype(np.float32), labels)))


def _posterior(model: TrainedModel, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of q(z|x), (images, latents) each."""
    posterior = model.encode(images)
    mean, logvar = (np.asarray(each, np.float64) for each in (posterior.mean, posterior.logvar))
    return mean, np.exp(logvar)


def _relative_factors(
    images: np.ndarray,
    labels: Int[np.ndarray, "images"],
    measured: np.ndarray,
    measured_labels: Int[np.ndarray, "measured"],
) -> Float[np.ndarray, "measured factors"]:
    """Factors of images relative to the means of their classes over other ones."""
    values, others = (_factors(each) for each in (measured, images))
    means = np.full((labels.max() + 1, len(FACTORS)), np.nan)
    for label in np.unique(labels):
        means[label] = np.nanmean(others[labels == label], axis=0)
    return values - means[measured_labels]


def _factors(images: np.ndarray) -> Float[np.ndarray, "images factors"]:
    morphology = measure(images)
    return np.stack([np.asarray(getattr(morphology, name)) for name in FACTORS], axis=1)


def _correlation(a: Float[np.ndarray, "values"], b: Float[np.ndarray, "values"]) -> float:
    is_known = np.isfinite(a) & np.isfinite(b)
    return float(np.corrcoef(a[is_known], b[is_known])[0, 1])

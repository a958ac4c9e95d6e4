"""Classifiers trained on generated characters, tested on real ones."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int

from jvae_jax.data import Dataset
from jvae_jax.evaluation import classifier
from jvae_jax.evaluation.classifier import EvalClassifier, classify_split
from jvae_jax.generation.characters import decode
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.models.inference import to_pixels
from jvae_jax.numerics import default_numerics
from jvae_jax.types import Variables

_AT_A_TIME = 5000
"""Characters that are generated at a time, which bounds the memory that their floats take."""


@default_numerics()
def classification_accuracy_score(
    model: Autoencoder,
    variables: Variables,
    eval_classifier: EvalClassifier,
    dataset: Dataset,
    key: Array,
    *,
    category_to_class: Sequence[int] | None = None,
    characters: int = 60_000,
    steps: int = classifier.STEPS,
) -> dict[str, Any]:
    """Trains classifiers on generated characters and tests them on the test split.

    They have the architecture and training of the evaluation classifier, which is trained on real
    images. The score is high only if generated characters are of the requested class and as varied
    as real ones.

    Args:
        model: an autoencoder with classes.
        variables: its parameters and batch statistics.
        eval_classifier: evaluation classifier of the dataset.
        dataset: the model's training data. All its labels are used, whatever ``num_labels`` of the
            training was.
        key: random key of z, which is drawn from the prior.
        category_to_class: class of each category c; None if they are the same.
        characters: number of generated characters, rounded to a multiple of the classes.
        steps: number of optimizer steps of each classifier.

    Returns:
        - ``cas``: accuracy of a classifier trained on generated characters alone, balanced over
          classes
        - ``cas_real``: accuracy of the evaluation classifier, trained on real images
        - where classes are rare, with fewer than half as many training images as the median class:
          ``rare_classes``, their indices; ``cas_augmented``, accuracy of a classifier trained on
          real images and as many generated ones as these classes lack of the median; and
          ``rare_class_accuracy_real`` and ``rare_class_accuracy_augmented``, accuracies on the
          test images of these classes

    Raises:
        ValueError: if the model has no classes.

    References:
        Ravuri and Vinyals, *Classification Accuracy Score for Conditional Generative Models*, 2019.
    """
    if not model.classes:
        raise ValueError("the classification accuracy score needs a model with classes")
    categories = np.arange(model.classes)
    classes = categories if category_to_class is None else np.asarray(category_to_class)
    keys = jax.random.split(key)

    def train_on(
        key: Array,
        counts: Int[np.ndarray, "classes"],
        real_images: np.ndarray,
        real_labels: np.ndarray,
    ) -> EvalClassifier:
        """Trains on real images and the given number of generated characters per category."""
        generated = np.repeat(categories, counts)
        images = _generate(model, variables, key, generated)
        with_generated = replace(
            dataset,
            train_images=np.concatenate([real_images, images]),
            train_labels=np.concatenate([real_labels, classes[generated]]),
        )
        return classifier.train(with_generated, steps=steps)

    per_class = max(1, round(characters / model.classes))
    no_images, no_labels = dataset.train_images[:0], dataset.train_labels[:0]
    alone = train_on(keys[0], np.full(model.classes, per_class), no_images, no_labels)
    metrics: dict[str, Any] = {"cas": alone.accuracy, "cas_real": eval_classifier.accuracy}
    labels = dataset.train_labels
    counts = np.bincount(labels[labels >= 0], minlength=model.classes)
    median = int(np.median(counts))
    rare = counts < median / 2
    if not rare.any():
        return metrics
    lacking = np.where(rare, median - counts, 0)
    augmented = train_on(keys[1], lacking[classes], dataset.train_images, dataset.train_labels)
    of_rare = np.isin(dataset.test_labels, np.flatnonzero(rare))
    metrics |= {
        "rare_classes": np.flatnonzero(rare).tolist(),
        "cas_augmented": augmented.accuracy,
    }
    if of_rare.any():
        targets = dataset.test_labels[of_rare]
        for name, trained in (("real", eval_classifier), ("augmented", augmented)):
            predicted, _ = classify_split(trained, dataset.test_images)
            metrics[f"rare_class_accuracy_{name}"] = float(np.mean(predicted[of_rare] == targets))
    return metrics


def _generate(
    model: Autoencoder, variables: Variables, key: Array, categories: Int[np.ndarray, "batch"]
) -> np.ndarray:
    """Decodes styles from the prior in the given categories, as uint8."""
    z = jax.random.normal(key, (len(categories), model.latents), jnp.float32)
    starts = range(_AT_A_TIME, len(categories), _AT_A_TIME)
    images = [
        to_pixels(decode(model, variables, chunk, jnp.asarray(of_chunk)))
        for chunk, of_chunk in zip(
            np.split(np.asarray(z), starts), np.split(categories, starts), strict=True
        )
    ]
    return np.concatenate(images)

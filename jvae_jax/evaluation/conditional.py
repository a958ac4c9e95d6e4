"""Metrics of generated characters: accuracy, Fréchet distance, precision, sensitivity to z."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jvae_jax.data import Dataset
from jvae_jax.evaluation.classifier import EvalClassifier, classify_split
from jvae_jax.generation.characters import decode, traverse
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.models.inference import in_chunks, scale_pixels
from jvae_jax.types import Variables

Features = Float[np.ndarray, "examples features"]
OtherFeatures = Float[np.ndarray, "others features"]

_TRAVERSAL_VALUES = np.linspace(-2.0, 2.0, 9)
_TRAVERSAL_STYLES = 20
_NEIGHBOURS = 3
"""Neighbour that sets the radius of a ball in precision and recall, as in their paper."""


def conditional_metrics(
    model: Autoencoder,
    variables: Variables,
    eval_classifier: EvalClassifier,
    dataset: Dataset,
    key: Array,
    *,
    category_to_class: Sequence[int] | None = None,
    characters: int = 10_000,
) -> dict[str, Any]:
    """Generates characters with z from the prior, balanced over classes, and classifies them.

    Args:
        model: an autoencoder, with or without classes.
        variables: its parameters and batch statistics.
        eval_classifier: evaluation classifier of the dataset.
        dataset: the model's training data.
        key: random key of z and of the choice of training images.
        category_to_class: class of each category c; None if they are the same.
        characters: number of generated characters, rounded to a multiple of the classes.

    Returns:
        - ``eval_classifier_accuracy``: accuracy of the classifier on the test split
        - ``frechet_distance``: :func:`frechet_distance` between the features of generated
          characters and of the test split
        - ``frechet_distance_real``: the same for an equal number of training images, a reference
        - ``precision``, ``recall``: :func:`precision_recall` of generated characters and the test
          split, and ``precision_real``, ``recall_real`` of training images, all of an equal number;
          left out if there are fewer than four
        - ``class_flip_rate_per_latent``: see :func:`class_flip_rate_per_latent`
        - with classes, ``conditional_accuracy``: fraction of characters classified as the
          requested class, with ``conditional_accuracy_per_class``
        - with classes, ``confusion``: counts, indexed by requested and predicted class
        - with classes, ``intra_class_frechet_distance`` and ``intra_class_frechet_distance_real``:
          means over the classes with at least two images on both sides; left out if there are none
    """
    keys = jax.random.split(key, 3)
    per_class = max(1, round(characters / max(model.classes, 1)))
    categories = np.repeat(np.arange(model.classes), per_class) if model.classes else None
    z = jax.random.normal(keys[0], (per_class * max(model.classes, 1), model.latents), jnp.float32)
    images = decode(model, variables, z, None if categories is None else jnp.asarray(categories))
    predicted, features = map(np.asarray, eval_classifier(images))
    train_images, train_labels = _random_subset(
        keys[1], dataset.train_images, dataset.train_labels, len(predicted)
    )
    _, train_features = classify_split(eval_classifier, train_images)
    _, test_features = classify_split(eval_classifier, dataset.test_images)
    metrics: dict[str, Any] = {
        "eval_classifier_accuracy": eval_classifier.accuracy,
        "frechet_distance": frechet_distance(features, test_features),
        "frechet_distance_real": frechet_distance(train_features, test_features),
        "class_flip_rate_per_latent": class_flip_rate_per_latent(
            model, variables, eval_classifier, keys[2]
        ).tolist(),
    }
    count = min(map(len, (features, train_features, test_features)))
    if count > _NEIGHBOURS:
        # The values depend on the numbers of examples. Generated ones are in the order of classes.
        order = np.asarray(jax.random.permutation(keys[1], len(features)))[:count]
        for suffix, of_images in (("", features[order]), ("_real", train_features[:count])):
            precision, recall = precision_recall(of_images, test_features[:count])
            metrics |= {f"precision{suffix}": precision, f"recall{suffix}": recall}
    if categories is None:
        return metrics
    # sklearn takes a second to import.
    from sklearn.metrics import confusion_matrix

    requested = categories
    if category_to_class is not None:
        requested = np.asarray(category_to_class)[categories]
    confusion = confusion_matrix(requested, predicted, labels=np.arange(model.classes))
    accuracies = confusion.diagonal() / confusion.sum(axis=1)
    metrics |= {
        "conditional_accuracy": float(accuracies.mean()),
        "conditional_accuracy_per_class": accuracies.tolist(),
        "confusion": confusion.tolist(),
    }
    for name, of_images, labels in (
        ("intra_class_frechet_distance", features, requested),
        ("intra_class_frechet_distance_real", train_features, train_labels),
    ):
        distances = _intra_class_distances(of_images, labels, test_features, dataset.test_labels)
        if distances:
            metrics[name] = float(np.mean(distances))
    return metrics


def frechet_distance(first: Features, second: OtherFeatures) -> float:
    """Fréchet distance between the Gaussians with the moments of two sets of features.

        |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2))

    with means m, m' and covariances C, C': the squared Wasserstein-2 distance of the Gaussians.
    Its estimate is biased upwards for few examples, so only compare values from equal numbers.

    Args:
        first: features, (examples, features).
        second: features, (others, features).

    Raises:
        ValueError: if the shapes don't suit, or a set has fewer than two examples.

    References:
        Heusel et al., *GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
        Equilibrium*, 2017. They use features of an Inception network.

    Example:
        >>> import numpy as np
        >>> from jvae_jax.evaluation import frechet_distance
        >>> features = np.random.default_rng(0).standard_normal((100, 3))
        >>> round(frechet_distance(features, features + 1), 6)
        3.0
    """
    shapes = np.shape(first), np.shape(second)
    if any(len(shape) != 2 or shape[0] < 2 for shape in shapes) or shapes[0][1] != shapes[1][1]:
        raise ValueError(
            "features must be two arrays of two or more rows and equally many columns, got shapes "
            f"{shapes[0]} and {shapes[1]}"
        )
    means = [features.mean(axis=0, dtype=np.float64) for features in (first, second)]
    covariances = [
        np.cov(features.astype(np.float64), rowvar=False) for features in (first, second)
    ]
    # tr (C C')^(1/2) = tr (R C' R)^(1/2) with R = C^(1/2), which is symmetric.
    values, vectors = np.linalg.eigh(covariances[0])
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ covariances[1] @ root).clip(0)).sum()
    return float(
        ((means[0] - means[1]) ** 2).sum()
        + np.trace(covariances[0])
        + np.trace(covariances[1])
        - 2 * cross
    )


def precision_recall(generated: Features, real: OtherFeatures) -> tuple[float, float]:
    """Precision and recall of generated examples, from balls around the features of each set.

    A set's manifold is estimated by a ball around each of its examples, with the distance of its
    third nearest neighbour in the set as radius. Precision is the fraction of generated examples
    in the real manifold, recall that of real examples in the generated manifold.

    Args:
        generated: features of generated examples, (examples, features).
        real: features of real examples, (others, features); only compare values from equal numbers.

    Returns:
        Precision and recall, from 0 to 1.

    Raises:
        ValueError: if the shapes don't suit, or a set has fewer than four examples.

    References:
        Kynkäänniemi et al., *Improved Precision and Recall Metric for Assessing Generative Models*,
        2019. They use features of a VGG-16 network.
    """
    shapes = np.shape(generated), np.shape(real)
    if (
        any(len(shape) != 2 or shape[0] <= _NEIGHBOURS for shape in shapes)
        or shapes[0][1] != shapes[1][1]
    ):
        raise ValueError(
            f"features must be two arrays of more than {_NEIGHBOURS} rows and equally many "
            f"columns, got shapes {shapes[0]} and {shapes[1]}"
        )
    return _fraction_inside(generated, real), _fraction_inside(real, generated)


def _fraction_inside(examples: Features, others: OtherFeatures) -> float:
    """Fraction of examples inside a ball of the others."""
    # sklearn takes a second to import.
    from sklearn.metrics import pairwise_distances_chunked
    from sklearn.neighbors import NearestNeighbors

    distances, _ = NearestNeighbors(n_neighbors=_NEIGHBOURS).fit(others).kneighbors()
    chunks = pairwise_distances_chunked(
        examples, others, reduce_func=lambda chunk, _: (chunk <= distances[:, -1]).any(axis=1)
    )
    return float(np.mean(np.concatenate(list(chunks))))


def class_flip_rate_per_latent(
    model: Autoencoder, variables: Variables, eval_classifier: EvalClassifier, key: Array
) -> Float[np.ndarray, "latents"]:
    """Fraction of class predictions that change when one latent is traversed from -2 to 2.

    The other latents keep the values of a style from the prior; 20 styles are traversed, each in
    every class.

    Args:
        model: an autoencoder, with or without classes.
        variables: its parameters and batch statistics.
        eval_classifier: evaluation classifier of the dataset.
        key: random key of the styles.

    Returns:
        For each latent, the fraction of traversed characters classified differently from the
        character with 0 in that latent, (latents,).
    """
    flip_rates = []
    for style in jax.random.normal(key, (_TRAVERSAL_STYLES, model.latents), jnp.float32):
        for label in range(model.classes) if model.classes else [None]:
            images = traverse(model, variables, style, jnp.asarray(_TRAVERSAL_VALUES), label)
            predicted, _ = eval_classifier(images.reshape(-1, *model.image_shape))
            predicted = np.asarray(predicted).reshape(model.latents, len(_TRAVERSAL_VALUES))
            at_zero = predicted[:, [len(_TRAVERSAL_VALUES) // 2]]
            flip_rates.append((predicted != at_zero).mean(axis=1))
    return np.mean(flip_rates, axis=0)


def most_confused(eval_classifier: EvalClassifier, dataset: Dataset, count: int = 3) -> list[int]:
    """Classes that the evaluation classifier confuses most on the test split.

    Starts with the pair that is most probably confused, then repeatedly adds the class that is
    most probably confused with those selected.

    Args:
        eval_classifier: evaluation classifier of the dataset.
        dataset: dataset with labelled test images.
        count: number of classes, at least 2.

    Returns:
        Class indices in ascending order.
    """
    probabilities = in_chunks(
        lambda pixels: np.asarray(eval_classifier.probabilities(scale_pixels(pixels))),
        dataset.test_images,
    )
    # Unlabelled images, -1, belong to no row.
    members = np.arange(eval_classifier.classes)[:, None] == dataset.test_labels
    confusion = members @ probabilities / members.sum(axis=1, keepdims=True).clip(1)
    confusion = confusion + confusion.T
    np.fill_diagonal(confusion, -np.inf)
    selected = [int(index) for index in np.unravel_index(confusion.argmax(), confusion.shape)]
    while len(selected) < count:
        selected.append(int(confusion[selected].sum(axis=0).argmax()))
    return sorted(selected)


def _random_subset(
    key: Array, images: np.ndarray, labels: np.ndarray, count: int
) -> tuple[np.ndarray, Int[np.ndarray, "examples"]]:
    indices = np.asarray(jax.random.permutation(key, len(labels)))[:count]
    return images[indices], labels[indices]


def _intra_class_distances(
    first: Features,
    first_labels: Int[np.ndarray, "examples"],
    second: OtherFeatures,
    second_labels: Int[np.ndarray, "others"],
) -> list[float]:
    """Fréchet distance within each class that has at least two examples in both sets."""
    distances = []
    for label in range(int(second_labels.max()) + 1):
        of_class = first[first_labels == label], second[second_labels == label]
        if min(map(len, of_class)) >= 2:
            distances.append(frechet_distance(*of_class))
    return distances

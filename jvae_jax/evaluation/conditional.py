"""What a judge says of a model: does it draw what it is asked for, how well, and how varied?"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jvae_jax.data import Dataset
from jvae_jax.evaluation.classifier import EvalClassifier
from jvae_jax.generation.characters import decode, traverse
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.models.inference import scale
from jvae_jax.types import Variables

Features = Float[np.ndarray, "examples features"]
OtherFeatures = Float[np.ndarray, "others features"]

_TRAVERSED = np.linspace(-2.0, 2.0, 9)
_STYLES = 20


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
    """Draws characters from the prior, every class equally often, and has them marked.

    Args:
        model: any of the six objectives' models.
        variables: its parameters and statistics.
        eval_classifier: of the same data.
        dataset: what the model was trained on.
        key: draws the styles.
        category_to_class: the class that each c means, where c is unsupervised.
        characters: how many to draw, to the nearest multiple of the classes.

    Returns:
        - ``eval_classifier_accuracy``: on the test split, to see what its verdicts are worth
        - ``frechet_distance``, ``frechet_distance_real``: see :func:`frechet_distance`; between the characters and
          the test split, and between as many training images and the test split
        - ``class_flip_rate_per_latent``: for each dimension of z, how often the verdict on a character changes
          as that dimension goes from -2 to 2
        - where there are classes: ``conditional_accuracy``, the share that the judge reads as the class asked for;
          ``conditional_accuracy_per_class``; ``confusion``, how often (class asked for, class read);
          ``intra_class_frechet_distance`` and its floor, the mean over classes that have two images on
          both sides, if there are any
    """
    keys = jax.random.split(key, 3)
    has_classes = model.classes > 0
    each = max(1, round(characters / max(model.classes, 1)))
    asked = np.repeat(np.arange(model.classes), each) if has_classes else None
    z = jax.random.normal(keys[0], (each * max(model.classes, 1), model.latents))
    images = decode(model, variables, z, None if asked is None else jnp.asarray(asked))
    read, drawn = map(np.asarray, eval_classifier(images))
    train, train_labels = _some(keys[1], dataset.train_images, dataset.train_labels, len(read))
    _, train_features = eval_classifier(scale(train))
    _, test_features = eval_classifier(scale(dataset.test_images))
    train_features, test_features = np.asarray(train_features), np.asarray(test_features)
    marks: dict[str, Any] = {
        "eval_classifier_accuracy": eval_classifier.accuracy,
        "frechet_distance": frechet_distance(drawn, test_features),
        "frechet_distance_real": frechet_distance(train_features, test_features),
        "class_flip_rate_per_latent": class_flip_rate_per_latent(
            model, variables, eval_classifier, keys[2]
        ).tolist(),
    }
    if asked is None:
        return marks
    if category_to_class is not None:
        asked = np.asarray(category_to_class)[asked]
    confusion = np.zeros((model.classes, model.classes), int)
    np.add.at(confusion, (asked, read), 1)
    per_class = confusion.diagonal() / confusion.sum(axis=1)
    marks |= {
        "conditional_accuracy": float(per_class.mean()),
        "conditional_accuracy_per_class": per_class.tolist(),
        "confusion": confusion.tolist(),
    }
    for name, features, labels in (
        ("intra_class_frechet_distance", drawn, asked),
        ("intra_class_frechet_distance_real", train_features, train_labels),
    ):
        distances = _within_class(features, labels, test_features, dataset.test_labels)
        if distances:
            marks[name] = float(np.mean(distances))
    return marks


def frechet_distance(first: Features, second: OtherFeatures) -> float:
    """|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)), with means m and covariances C of two sets.

    The squared Wasserstein-2 distance of the Gaussians with their moments; 0 if these agree. Fewer
    examples give a larger value, so compare it with a floor from as many.

    Heusel et al., *GANs TrainedModel by a Two Time-Scale Update Rule Converge to a Local Nash
    Equilibrium*, 2017, with a classifier of one's own data in place of Inception.
    """
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


def class_flip_rate_per_latent(
    model: Autoencoder, variables: Variables, eval_classifier: EvalClassifier, key: Array
) -> Float[np.ndarray, "latents"]:
    """How often the judge reads another class, as one dimension of z goes from -2 to 2.

    Of 20 styles from the prior, in every class where there are classes; the rest of z stays.

    Returns:
        For each dimension, the share of characters whose verdict isn't that of the same character
        with 0 in that dimension.
    """
    changes = []
    for style in jax.random.normal(key, (_STYLES, model.latents)):
        for label in range(model.classes) if model.classes else [None]:
            images = traverse(model, variables, style, jnp.asarray(_TRAVERSED), label)
            read, _ = eval_classifier(images.reshape(-1, *model.image_shape))
            verdicts = np.asarray(read).reshape(model.latents, len(_TRAVERSED))
            at_zero = verdicts[:, [len(_TRAVERSED) // 2]]
            changes.append((verdicts != at_zero).mean(axis=1))
    return np.mean(changes, axis=0)


def most_confused(eval_classifier: EvalClassifier, dataset: Dataset, count: int = 3) -> list[int]:
    """The classes that the judge finds hardest to tell apart on the test split.

    Begins with the pair that it is likeliest to mistake for each other, then adds, one by one, the
    class that it is likeliest to mistake for those.

    Args:
        eval_classifier: of the same data.
        dataset: with labelled test images.
        count: how many classes, from 2.

    Returns:
        Their indices, in ascending order.
    """
    probabilities = np.asarray(eval_classifier.probabilities(scale(dataset.test_images)))
    # Rows of -1 match no class.
    members = np.arange(eval_classifier.classes)[:, None] == dataset.test_labels
    mistaken = members @ probabilities / members.sum(axis=1, keepdims=True).clip(1)
    mistaken = mistaken + mistaken.T
    np.fill_diagonal(mistaken, -np.inf)
    chosen = [int(index) for index in np.unravel_index(mistaken.argmax(), mistaken.shape)]
    while len(chosen) < count:
        chosen.append(int(mistaken[chosen].sum(axis=0).argmax()))
    return sorted(chosen)


def _some(
    key: Array, images: np.ndarray, labels: np.ndarray, count: int
) -> tuple[np.ndarray, Int[np.ndarray, "examples"]]:
    chosen = np.asarray(jax.random.permutation(key, len(labels)))[:count]
    return images[chosen], labels[chosen]


def _within_class(
    first: Features,
    first_labels: Int[np.ndarray, "examples"],
    second: OtherFeatures,
    second_labels: Int[np.ndarray, "others"],
) -> list[float]:
    """The distance within each class that has two examples in both sets."""
    distances = []
    for label in range(int(second_labels.max()) + 1):
        of_class = first[first_labels == label], second[second_labels == label]
        if min(map(len, of_class)) >= 2:
            distances.append(frechet_distance(*of_class))
    return distances

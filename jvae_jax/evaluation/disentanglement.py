"""Disentanglement of z and c: from the label, and from the morphology of the characters."""

from operator import itemgetter
from typing import Any

import jax
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jvae_jax.data import Dataset
from jvae_jax.evaluation import factors
from jvae_jax.evaluation.morphology import Morphology, measure
from jvae_jax.generation.characters import encode
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.models.inference import in_chunks
from jvae_jax.types import Posterior, Variables


def disentanglement(model: Autoencoder, variables: Variables, dataset: Dataset) -> dict[str, float]:
    """Computes how much information z and c carry about the label.

    Args:
        model: an autoencoder, with or without classes.
        variables: its parameters and batch statistics.
        dataset: the model's training data. Unlabelled images are ignored.

    Returns:
        - ``linear_probe_accuracy``: test accuracy of a linear probe that predicts the label from
          the mean of q(z|x), trained on the train split. The closer it is to
          ``majority_class_accuracy``, the less z encodes the class.
        - ``majority_class_accuracy``: test accuracy of predicting the most frequent class.
        - with classes, ``mutual_information``: I(c; y) in nats on the test split, between the most
          probable c and the label; and its upper bound ``label_entropy``, H(y).
    """
    encoded = {}
    for split in ("train", "test"):
        labels = getattr(dataset, f"{split}_labels")
        posterior: Posterior = in_chunks(
            lambda images: encode(model, variables, images), getattr(dataset, f"{split}_images")
        )
        labelled = labels >= 0
        encoded[split] = jax.tree.map(itemgetter(labelled), (posterior, labels))
    (train, train_labels), (test, test_labels) = encoded["train"], encoded["test"]
    class_frequencies = np.bincount(test_labels) / len(test_labels)
    metrics = {
        "linear_probe_accuracy": linear_probe_accuracy(
            train.mean, train_labels, test.mean, test_labels
        ),
        "majority_class_accuracy": float(class_frequencies.max()),
    }
    if test.logits is not None:
        # sklearn takes a second to import.
        from sklearn.metrics import mutual_info_score

        metrics["mutual_information"] = float(
            mutual_info_score(test_labels, test.logits.argmax(axis=-1))
        )
        metrics["label_entropy"] = float(mutual_info_score(test_labels, test_labels))
    return metrics


def morphology_metrics(
    model: Autoencoder,
    variables: Variables,
    dataset: Dataset,
    key: Array,
    *,
    images: int = 5000,
) -> dict[str, Any]:
    """Computes how z relates to slant, thickness, length, width, height and area of characters.

    Scores compare the mean of q(z|x) with :func:`~jvae_jax.evaluation.morphology.measure`. Within
    classes, the means of the class are subtracted from both.

    Args:
        model: an autoencoder, with or without classes, of grey images.
        variables: its parameters and batch statistics.
        dataset: the model's training data. Unlabelled images and images without ink are ignored.
        key: random key of the choice of images.
        images: number of images of each split, at most.

    Returns:
        - ``factor_r2``, ``factor_r2_within_classes``: R^2 of a linear regression of each factor
          from z, on the test split, by the factor's name
        - ``factor_information``: mutual information of each dimension of z and each factor, in
          nats, by the factor's name
        - ``factor_c_information``: with classes, that of the most probable c and each factor
        - ``dci_disentanglement``, ``dci_completeness``, ``dci_informativeness``, ``mig`` and
          ``sap``; and with the suffix ``_within_classes``

    References:
        See :mod:`~jvae_jax.evaluation.factors`.
    """
    splits = {}
    for split, split_key in zip(("train", "test"), jax.random.split(key), strict=True):
        labels = getattr(dataset, f"{split}_labels")
        order = np.asarray(jax.random.permutation(split_key, len(labels)))
        chosen = order[labels[order] >= 0][:images]
        chosen_images = getattr(dataset, f"{split}_images")[chosen]
        measured = np.stack(measure(chosen_images), axis=1)
        has_ink = np.isfinite(measured).all(axis=1)
        posterior = jax.device_get(encode(model, variables, chosen_images[has_ink]))
        splits[split] = posterior, measured[has_ink], labels[chosen][has_ink]
    (train, train_factors, train_labels), (test, test_factors, test_labels) = splits.values()
    # Means of the classes are estimated on the training split.
    members = np.arange(len(dataset.class_names))[:, None] == train_labels
    counts = members.sum(axis=1, keepdims=True).clip(1)

    def centred(values: np.ndarray, train_values: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return values - (members @ train_values / counts)[labels]

    overall = train.mean, train_factors, test.mean, test_factors
    within_classes = (
        centred(train.mean, train.mean, train_labels),
        centred(train_factors, train_factors, train_labels),
        centred(test.mean, train.mean, test_labels),
        centred(test_factors, train_factors, test_labels),
    )

    def by_factor(values: np.ndarray) -> dict[str, Any]:
        return dict(zip(Morphology._fields, values.tolist(), strict=True))

    information = factors.mutual_information(test.mean, test_factors)
    metrics: dict[str, Any] = {"factor_information": by_factor(information.T)}
    if test.logits is not None:
        c = test.logits.argmax(axis=-1)[:, None].astype(np.float64)
        information = factors.mutual_information(c, test_factors, discrete_z=True)
        metrics["factor_c_information"] = by_factor(information[0])
    for suffix, arrays in (("", overall), ("_within_classes", within_classes)):
        z, z_factors = arrays[2:]
        metrics[f"factor_r2{suffix}"] = by_factor(factors.linear_r2(*arrays))
        for name, score in factors.dci(*arrays).items():
            metrics[f"dci_{name}{suffix}"] = score
        metrics[f"mig{suffix}"] = factors.mutual_information_gap(z, z_factors)
        metrics[f"sap{suffix}"] = factors.separated_attribute_predictability(z, z_factors)
    return metrics


def linear_probe_accuracy(
    train_z: Float[np.ndarray, "examples latents"],
    train_labels: Int[np.ndarray, "examples"],
    test_z: Float[np.ndarray, "others latents"],
    test_labels: Int[np.ndarray, "others"],
) -> float:
    """Test accuracy of a logistic regression of the label on standardised z.

    Args:
        train_z: latents to fit the regression to, (examples, latents).
        train_labels: their class indices, (examples,).
        test_z: latents to predict labels from, (others, latents).
        test_labels: their class indices, (others,).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe: Any = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    probe.fit(train_z, train_labels)
    return float(probe.score(test_z, test_labels))

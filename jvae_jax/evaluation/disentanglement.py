"""Disentanglement of z and c: linear probe on z, mutual information of c and the label."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from jvae_jax.data import Dataset
from jvae_jax.generation.characters import encode
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.types import Variables


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
        images = getattr(dataset, f"{split}_images")[labels >= 0]
        encoded[split] = jax.device_get(encode(model, variables, images)), labels[labels >= 0]
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

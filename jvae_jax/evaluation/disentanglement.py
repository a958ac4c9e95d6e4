"""Is c about the character, and z about the style?"""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from jvae_jax.data import Dataset
from jvae_jax.generation.characters import encode
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.types import Variables


def disentanglement(model: Autoencoder, variables: Variables, dataset: Dataset) -> dict[str, float]:
    """What z and c know of the label.

    Returns:
        - ``linear_probe_accuracy``: of a linear probe that reads labels of the test split from the mean z,
          having learned it from the train split. The nearer to chance, the less of the character is
          in z.
        - ``majority_class_accuracy``: of always naming the most frequent class.
        - where there are classes: ``mutual_information`` of the likeliest c and the label on the
          test split, in nats; at most ``label_entropy``.
    """
    codes = {}
    for split in ("train", "test"):
        labels = getattr(dataset, f"{split}_labels")
        images = getattr(dataset, f"{split}_images")[labels >= 0]
        codes[split] = jax.device_get(encode(model, variables, images)), labels[labels >= 0]
    (train, train_labels), (test, test_labels) = codes["train"], codes["test"]
    shares = np.bincount(test_labels) / len(test_labels)
    found = {
        "linear_probe_accuracy": linear_probe_accuracy(
            train.mean, train_labels, test.mean, test_labels
        ),
        "majority_class_accuracy": float(shares.max()),
    }
    if test.logits is not None:
        # sklearn takes a second to import.
        from sklearn.metrics import mutual_info_score

        found["mutual_information"] = float(
            mutual_info_score(test_labels, test.logits.argmax(axis=-1))
        )
        found["label_entropy"] = float(mutual_info_score(test_labels, test_labels))
    return found


def linear_probe_accuracy(
    train_z: Float[np.ndarray, "examples latents"],
    train_labels: Int[np.ndarray, "examples"],
    test_z: Float[np.ndarray, "others latents"],
    test_labels: Int[np.ndarray, "others"],
) -> float:
    """The share of test labels that a logistic regression, trained on the others, reads from z."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe: Any = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    probe.fit(train_z, train_labels)
    return float(probe.score(test_z, test_labels))

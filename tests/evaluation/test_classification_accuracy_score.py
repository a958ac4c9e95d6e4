"""Classifiers trained on generated characters."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import make_dataset

from jvae_jax.evaluation import classification_accuracy_score as module
from jvae_jax.evaluation.classification_accuracy_score import classification_accuracy_score


class FakeModel:
    """Draws a grey level for each category; category k is class (k + 1) % 3."""

    latents, classes, image_shape = 2, 3, (8, 8, 1)


class FakeClassifier:
    """Predicts class 2."""

    def __init__(self, accuracy):
        self.accuracy = accuracy

    def __call__(self, images):
        return np.full(len(images), 2), None


@pytest.fixture
def score(monkeypatch, without_jaxtyping):
    """Computes the score with a stub of the training, and returns the datasets trained on too."""
    del without_jaxtyping
    trained_on = []

    def fake_train(dataset, *, steps):
        assert steps == 7
        trained_on.append(dataset)
        return FakeClassifier(len(trained_on) / 10)

    def fake_decode(_model, _variables, z, categories):
        assert len(z) == len(categories) <= 5000
        return jnp.broadcast_to(categories[:, None, None, None] / 255, (len(z), 8, 8, 1))

    monkeypatch.setattr(module.classifier, "train", fake_train)
    monkeypatch.setattr(module, "decode", fake_decode)

    def compute(dataset, model=FakeModel, **options):
        metrics = classification_accuracy_score(
            model, {}, FakeClassifier(0.9), dataset, jax.random.key(0), steps=7, **options
        )
        return metrics, trained_on

    return compute


def test_trains_on_generated_characters_alone(score):
    dataset = make_dataset()
    metrics, (trained_on,) = score(dataset, characters=16_000, category_to_class=[1, 2, 0])
    assert metrics == {"cas": 0.1, "cas_real": 0.9}
    assert len(trained_on.train_images) == 15_999
    # Of every category, a third, with the label of its class.
    categories = trained_on.train_images[:, 0, 0, 0]
    np.testing.assert_array_equal(np.bincount(categories), [5333] * 3)
    np.testing.assert_array_equal(trained_on.train_labels, (categories + 1) % 3)
    assert trained_on.test_images is dataset.test_images


def test_adds_what_rare_classes_lack_of_the_median(score):
    """16, 16 and 5 training images: the third class lacks 11."""
    dataset = make_dataset()
    rare = np.flatnonzero(dataset.train_labels == 2)[5:]
    dataset = replace(
        dataset,
        train_images=np.delete(dataset.train_images, rare, axis=0),
        train_labels=np.delete(dataset.train_labels, rare),
    )
    metrics, trained_on = score(dataset, characters=3, category_to_class=[1, 2, 0])
    assert metrics == {
        "cas": 0.1,
        "cas_real": 0.9,
        "rare_classes": [2],
        "cas_augmented": 0.2,
        "rare_class_accuracy_real": 1.0,
        "rare_class_accuracy_augmented": 1.0,
    }
    augmented = trained_on[1]
    np.testing.assert_array_equal(np.bincount(augmented.train_labels), [16, 16, 16])
    np.testing.assert_array_equal(augmented.train_images[:37], dataset.train_images)
    assert (augmented.train_images[37:] == 1).all()  # category 1 is class 2


def test_requires_classes(score):
    with pytest.raises(ValueError, match="needs a model with classes"):
        score(make_dataset(), model=SimpleNamespace(classes=0))

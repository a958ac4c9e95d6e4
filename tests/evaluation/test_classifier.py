import jax
import numpy as np
import pytest
from helpers import make_dataset

from jvae_jax import data
from jvae_jax.evaluation import classifier
from jvae_jax.models.inference import scale


@pytest.fixture(scope="module")
def toy_classifier():
    return classifier.train(make_dataset(), steps=60)


def test_it_learns_what_it_is_shown(toy_classifier):
    dataset = make_dataset(seed=5)
    assert toy_classifier.accuracy == 1.0
    read, features = toy_classifier(scale(dataset.test_images))
    np.testing.assert_array_equal(read, dataset.test_labels)
    assert features.shape == (20, classifier.FEATURES)


def test_its_accuracy_is_that_on_the_test_split():
    dataset = make_dataset()
    dataset.test_labels[:5] = (dataset.test_labels[:5] + 1) % 3
    dataset.test_labels[5:10] = -1
    assert classifier.train(dataset, steps=60).accuracy == pytest.approx(10 / 15)


def test_it_is_trained_once(tmp_path, monkeypatch, toy_classifier):
    monkeypatch.setattr(classifier, "train", lambda _dataset: toy_classifier)
    dataset = make_dataset()
    classifier.load(dataset, tmp_path)
    monkeypatch.setattr(classifier, "train", pytest.fail)
    kept = classifier.load(dataset, tmp_path)
    assert kept.accuracy == toy_classifier.accuracy
    jax.tree.map(np.testing.assert_array_equal, kept.variables, toy_classifier.variables)
    # Another data set has another eval_classifier, and a damaged file is none.
    monkeypatch.setattr(classifier, "train", lambda _dataset: toy_classifier)
    classifier.load(make_dataset(seed=1), tmp_path)
    files = sorted((tmp_path / "eval_classifiers").iterdir())
    assert len(files) == 2
    for file in files:
        file.write_bytes(file.read_bytes()[:500])
    assert classifier.load(dataset, tmp_path).accuracy == toy_classifier.accuracy


@pytest.mark.parametrize("split", ["train", "test"])
def test_labels_are_needed(split):
    dataset = make_dataset()
    getattr(dataset, f"{split}_labels")[:] = -1
    with pytest.raises(ValueError, match=f"needs labels, and no {split} image has one"):
        classifier.train(dataset)


@pytest.mark.long
def test_it_reads_the_embedded_digits():
    digits = data.load("mnist_5k", say=print)
    assert classifier.train(digits, steps=1500).accuracy >= 0.985

from dataclasses import FrozenInstanceError, replace
from itertools import count
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import log_messages, make_dataset
from safetensors.numpy import save

from jvae_jax import data
from jvae_jax.evaluation import classifier
from jvae_jax.models.inference import scale_pixels


@pytest.fixture(scope="module")
def toy_classifier():
    return classifier.train(make_dataset(), steps=60)


def test_learns_toy_classes(toy_classifier):
    dataset = make_dataset(seed=5)
    assert toy_classifier.accuracy == 1.0
    predicted, features = toy_classifier(scale_pixels(dataset.test_images))
    np.testing.assert_array_equal(predicted, dataset.test_labels)
    assert features.shape == (20, classifier.FEATURES)


def test_takes_images_of_any_size():
    """Padded to 8 x 8 pixels, with the same parameters as for images that are 8 x 8."""
    dataset = make_dataset(size=6)
    trained = classifier.train(dataset, steps=60)
    assert trained.accuracy == 1.0
    images = jnp.pad(scale_pixels(dataset.test_images), ((0, 0), (1, 1), (1, 1), (0, 0)))
    padded = replace(trained, image_shape=(8, 8, 1)).probabilities(images)
    probabilities = trained.probabilities(scale_pixels(dataset.test_images))
    np.testing.assert_array_equal(probabilities, padded)


def test_probabilities_are_a_linear_classification_of_the_features(toy_classifier):
    images = scale_pixels(make_dataset(seed=5).test_images)
    predicted, features = toy_classifier(images)
    params = toy_classifier.variables["params"]["Dense_1"]
    logits = np.asarray(features, np.float64) @ params["kernel"] + params["bias"]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(toy_classifier.probabilities(images), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(predicted, logits.argmax(axis=1))
    assert toy_classifier.classes == 3


def test_classifier_is_compared_by_identity_and_frozen(toy_classifier):
    """Its arrays have no single truth value."""
    assert toy_classifier != replace(toy_classifier)
    assert {toy_classifier: 1}[toy_classifier] == 1
    with pytest.raises(FrozenInstanceError):
        toy_classifier.accuracy = 1.0


def test_network_halves_images_three_times(toy_classifier):
    """Convolutions with 32, 64 and 128 filters, then 256 features."""
    kernels = [
        leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(toy_classifier.variables["params"])
        if "kernel" in str(path[-1])
    ]
    assert [shape[-2:] for shape in kernels[:3]] == [(1, 32), (32, 64), (64, 128)]
    assert kernels[3:] == [(128, 256), (256, 3)]
    assert list(toy_classifier.variables["params"]["Dense_0"]) == ["kernel"]


def test_batches_of_a_split_are_classified_alike(toy_classifier):
    """450 images are more than two batches."""
    images = scale_pixels(make_dataset(test=450).test_images)
    whole, _ = toy_classifier(images)
    parts = [toy_classifier(part)[0] for part in (images[:200], images[200:400], images[400:])]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


@pytest.mark.parametrize(
    ("options", "chunks"),
    [
        ({"steps": 250}, [(0, 100), (100, 200), (200, 250)]),
        ({}, [(n, n + 100) for n in range(0, 7000, 100)]),
    ],
)
def test_trains_for_a_number_of_steps_on_labelled_images(monkeypatch, options, chunks):
    dataset = make_dataset()
    dataset.train_labels[::2] = -1
    calls, schedules = [], []

    indices = {image.tobytes(): index for index, image in enumerate(dataset.train_images)}

    def train_steps(_network, _optimizer, state, batches, _key, steps):
        assert batches.labels.shape == (len(steps), 128)
        images = batches.images.reshape(-1, 8, 8, 1)
        examples = [indices[image.tobytes()] for image in images]
        assert set(examples) == set(range(1, 48, 2))
        np.testing.assert_array_equal(batches.labels.ravel(), dataset.train_labels[examples])
        np.testing.assert_array_equal(steps, np.arange(int(steps[0]), int(steps[-1]) + 1))
        calls.append((int(steps[0]), int(steps[-1]) + 1))
        return state

    original = optax.cosine_onecycle_schedule
    monkeypatch.setattr(classifier, "_train_steps", train_steps)
    monkeypatch.setattr(
        optax, "cosine_onecycle_schedule", lambda *a: schedules.append(a) or original(*a)
    )
    classifier.train(dataset, **options)
    assert calls == chunks
    assert schedules == [(options.get("steps", 7000), 3e-3)]


def test_accuracy_is_on_labelled_test_images():
    dataset = make_dataset()
    dataset.test_labels[:5] = (dataset.test_labels[:5] + 1) % 3
    dataset.test_labels[5:10] = -1
    assert classifier.train(dataset, steps=60).accuracy == pytest.approx(10 / 15)


def test_large_images_are_sent_a_few_steps_at_a_time(monkeypatch, toy_classifier):
    """With the same result."""
    monkeypatch.setattr(classifier, "CHUNK_BYTES", 128 * 64 * 20)
    lengths = []
    train_steps = classifier._train_steps

    def spy(*arguments):
        lengths.append(len(arguments[3].images))
        return train_steps(*arguments)

    monkeypatch.setattr(classifier, "_train_steps", spy)
    trained = classifier.train(make_dataset(), steps=60)
    assert lengths == [20, 20, 20]
    jax.tree.map(np.testing.assert_array_equal, trained.variables, toy_classifier.variables)


@pytest.mark.long
def test_classifier_of_mnist_comes_with_the_package(mnist_files, tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "train", pytest.fail)
    dataset = data.load("mnist", mnist_files)
    packaged = classifier.load_or_train(dataset, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    predicted, _ = classifier.classify_split(packaged, dataset.test_images)
    assert np.mean(predicted == dataset.test_labels) == pytest.approx(packaged.accuracy, abs=2e-4)
    assert packaged.accuracy > 0.995


def test_training_says_how_long_it_takes(monkeypatch):
    """By the second of three dispatches, here of six seconds."""
    monkeypatch.setattr(classifier, "_STEPS_PER_DISPATCH", 20)
    monkeypatch.setattr(classifier, "time", SimpleNamespace(monotonic=count(0, 6).__next__))
    with log_messages() as messages:
        classifier.train(make_dataset(), steps=60)
    assert messages == ["evaluation classifier: 40 of 60 steps, 0:00:06 left"]


def test_cache(tmp_path, monkeypatch, toy_classifier):
    monkeypatch.setattr(classifier, "train", lambda _dataset: toy_classifier)
    dataset = make_dataset()
    with log_messages() as messages:
        classifier.load_or_train(dataset, tmp_path)
    assert messages == ["training the evaluation classifier, once for this dataset"]
    (path,) = tmp_path.rglob("*.*")
    assert path == tmp_path / "eval_classifiers" / f"{dataset.fingerprint}_2.safetensors"
    monkeypatch.setattr(classifier, "train", pytest.fail)
    cached = classifier.load_or_train(dataset, tmp_path)
    assert cached.accuracy == toy_classifier.accuracy
    jax.tree.map(np.testing.assert_array_equal, cached.variables, toy_classifier.variables)
    # Another dataset has another file; damaged files are replaced.
    monkeypatch.setattr(classifier, "train", lambda _dataset: toy_classifier)
    classifier.load_or_train(make_dataset(seed=1), tmp_path)
    files = sorted((tmp_path / "eval_classifiers").iterdir())
    assert len(files) == 2
    for file in files:
        file.write_bytes(file.read_bytes()[:500])
    assert classifier.load_or_train(dataset, tmp_path).accuracy == toy_classifier.accuracy
    monkeypatch.setattr(classifier, "train", pytest.fail)
    classifier.load_or_train(dataset, tmp_path)


@pytest.mark.parametrize("contents", [b"", b"no safetensors", save({"accuracy_": np.zeros(1)})])
def test_foreign_cache_file_is_replaced(contents, tmp_path, monkeypatch, toy_classifier):
    monkeypatch.setattr(classifier, "train", lambda _dataset: toy_classifier)
    dataset = make_dataset()
    classifier.load_or_train(dataset, tmp_path)
    (path,) = (tmp_path / "eval_classifiers").iterdir()
    written = path.read_bytes()
    path.write_bytes(contents)
    assert classifier.load_or_train(dataset, tmp_path).accuracy == toy_classifier.accuracy
    assert path.read_bytes() == written


@pytest.mark.fault(
    "data files", "flipped bit in the cached evaluation classifier", "detected, and trained again"
)
def test_cache_file_with_flipped_bit_is_replaced(tmp_path, monkeypatch, toy_classifier):
    monkeypatch.setattr(classifier, "train", lambda _dataset: toy_classifier)
    dataset = make_dataset()
    classifier.load_or_train(dataset, tmp_path)
    (path,) = (tmp_path / "eval_classifiers").iterdir()
    written = path.read_bytes()
    path.write_bytes(written[:-1] + bytes([written[-1] ^ 1]))
    classifier.load_or_train(dataset, tmp_path)
    assert path.read_bytes() == written


def test_cache_keeps_values_of_strided_arrays(tmp_path, monkeypatch):
    """Arrays from a device may be in another order than C."""
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3).T
    strided = classifier.EvalClassifier(3, {"params": {"kernel": kernel}}, 0.5)
    monkeypatch.setattr(classifier, "train", lambda _dataset: strided)
    classifier.load_or_train(make_dataset(), tmp_path)
    monkeypatch.setattr(classifier, "train", pytest.fail)
    cached = classifier.load_or_train(make_dataset(), tmp_path)
    np.testing.assert_array_equal(cached.variables["params"]["kernel"], kernel)


@pytest.mark.parametrize("split", ["train", "test"])
def test_requires_labels(split):
    dataset = make_dataset()
    getattr(dataset, f"{split}_labels")[:] = -1
    with pytest.raises(ValueError, match=f"needs labels, but no {split} image has one"):
        classifier.train(dataset)


@pytest.mark.long
def test_accuracy_on_mnist_5k():
    digits = data.load("mnist_5k")
    assert classifier.train(digits, steps=600).accuracy >= 0.985

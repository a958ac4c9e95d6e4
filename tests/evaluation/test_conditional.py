"""Metrics of generated characters, for a model and a classifier with known answers."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import make_dataset
from scipy.linalg import sqrtm

from jvae_jax.evaluation import conditional


class FakeModel:
    """Generates images whose first pixels are the label and z.

    The label is the next class if the second latent is above 1.
    """

    latents, classes, image_shape = 2, 3, (8, 8, 1)


class FakeClassifier:
    """Predicts the first pixel, with the next pixels as features."""

    accuracy = 0.5

    def __call__(self, images):
        flat = np.asarray(images).reshape(len(images), -1)
        return flat[:, 0].astype(int) % 3, flat[:, 1:4]


def fake_decode(z, labels):
    z, labels = np.asarray(z), np.zeros(len(z)) if labels is None else np.asarray(labels)
    images = np.zeros((len(z), 64))
    images[:, 0] = np.where(z[:, 1] > 1, (labels + 1) % 3, labels)
    images[:, 1:3] = z
    return jnp.asarray(images.reshape(-1, 8, 8, 1))


def fake_traverse(_model, _variables, z, values, label=None):
    styles = np.tile(np.asarray(z), (2, len(values), 1))
    for dimension in range(2):
        styles[dimension, :, dimension] = values
    labels = None if label is None else np.full(2 * len(values), label)
    return fake_decode(styles.reshape(-1, 2), labels).reshape(2, -1, 8, 8, 1)


@pytest.fixture
def model(monkeypatch, without_jaxtyping):
    del without_jaxtyping
    monkeypatch.setattr(
        conditional, "decode", lambda _model, _variables, z, labels: fake_decode(z, labels)
    )
    monkeypatch.setattr(conditional, "traverse", fake_traverse)
    return FakeModel()


def compute_metrics(model, dataset=None, characters=6000, **options):
    return conditional.conditional_metrics(
        model,
        {},
        FakeClassifier(),
        dataset or make_dataset(),
        jax.random.key(0),
        characters=characters,
        **options,
    )


def test_confusion_counts_predictions_per_requested_class(model):
    metrics = compute_metrics(model)
    flipped = 0.1587  # P(z > 1), where the model generates the next class
    assert metrics["conditional_accuracy"] == pytest.approx(1 - flipped, abs=0.02)
    confusion = np.array(metrics["confusion"])
    np.testing.assert_array_equal(confusion.sum(axis=1), 2000)
    for requested in range(3):
        assert confusion[requested, (requested + 1) % 3] == pytest.approx(2000 * flipped, rel=0.15)
        assert confusion[requested, (requested + 2) % 3] == 0
        accuracy = metrics["conditional_accuracy_per_class"][requested]
        assert accuracy == confusion[requested, requested] / 2000


def features_of(images):
    return np.asarray(images).reshape(len(images), -1)[:, 1:4] / 255


@pytest.mark.parametrize("characters", [30, 31, 29])
def test_frechet_distances_are_of_all_images_and_within_classes(model, characters):
    """Ten generated characters of each class, 30 of the training images, and the test images."""
    dataset = make_dataset()
    metrics = compute_metrics(model, dataset, characters=characters)
    z_key, subset_key, _ = jax.random.split(jax.random.key(0), 3)
    z = np.asarray(jax.random.normal(z_key, (30, 2)), np.float64)
    generated, requested = np.column_stack([z, np.zeros(30)]), np.arange(30) // 10
    chosen = np.asarray(jax.random.permutation(subset_key, 48))[:30]
    train, train_labels = features_of(dataset.train_images[chosen]), dataset.train_labels[chosen]
    test, test_labels = features_of(dataset.test_images), dataset.test_labels

    def within_classes(features, labels):
        return np.mean(
            [
                conditional.frechet_distance(features[labels == k], test[test_labels == k])
                for k in range(3)
            ]
        )

    expected = {
        "eval_classifier_accuracy": 0.5,
        "frechet_distance": conditional.frechet_distance(generated, test),
        "frechet_distance_real": conditional.frechet_distance(train, test),
        "intra_class_frechet_distance": within_classes(generated, requested),
        "intra_class_frechet_distance_real": within_classes(train, train_labels),
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    matched = compute_metrics(model, dataset, characters=characters, category_to_class=[1, 2, 0])
    assert matched["intra_class_frechet_distance"] == pytest.approx(
        within_classes(generated, np.array([1, 2, 0])[requested]), rel=1e-4
    )
    assert matched["frechet_distance"] == metrics["frechet_distance"]


def test_generates_at_least_one_character_per_class(model):
    confusion = np.array(compute_metrics(model, characters=1)["confusion"])
    np.testing.assert_array_equal(confusion.sum(axis=1), 1)


def test_generates_ten_thousand_characters_by_default(model, monkeypatch):
    counts = []
    decode = lambda _model, _variables, z, labels: counts.append(len(z)) or fake_decode(z, labels)  # noqa: E731
    monkeypatch.setattr(conditional, "decode", decode)
    arguments = model, {}, FakeClassifier(), make_dataset(), jax.random.key(0)
    conditional.conditional_metrics(*arguments)
    monkeypatch.setattr(FakeModel, "classes", 0)
    conditional.conditional_metrics(*arguments)
    assert counts == [9999, 10_000]


def test_traverses_twenty_styles_in_every_class(model, monkeypatch):
    calls = []

    def recording(model, variables, z, values, label):
        calls.append((tuple(np.asarray(z).tolist()), label))
        np.testing.assert_array_equal(values, np.arange(-4, 5) / 2)
        return fake_traverse(model, variables, z, values, label)

    monkeypatch.setattr(conditional, "traverse", recording)
    compute_metrics(model, characters=30)
    styles = jax.random.normal(jax.random.split(jax.random.key(0), 3)[2], (20, 2)).tolist()
    assert calls == [(tuple(style), label) for style in styles for label in range(3)]
    del calls[:]
    monkeypatch.setattr(FakeModel, "classes", 0)
    compute_metrics(model, characters=30)
    assert calls == [(tuple(style), None) for style in styles]


def test_category_to_class_maps_requested_class(model):
    identity, matched = compute_metrics(model), compute_metrics(model, category_to_class=[1, 2, 0])
    assert matched["conditional_accuracy"] == pytest.approx(1 - identity["conditional_accuracy"])


def test_class_flip_rate_of_each_latent(model):
    # Of -2, -1.5 ... 2, two are above 1, where the class isn't that at 0.
    np.testing.assert_allclose(compute_metrics(model)["class_flip_rate_per_latent"], [0, 2 / 9])


def test_metrics_without_classes(model, monkeypatch):
    monkeypatch.setattr(FakeModel, "classes", 0)
    metrics = compute_metrics(model)
    assert metrics.keys() == {
        "eval_classifier_accuracy",
        "frechet_distance",
        "frechet_distance_real",
        "precision",
        "recall",
        "precision_real",
        "recall_real",
        "class_flip_rate_per_latent",
    }


def test_frechet_distance_of_known_moments():
    """For diagonal covariances: |m - m'|^2 + |s - s'|^2, with standard deviations s."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((50_000, 3))
    noise = (noise - noise.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(noise.T))).T
    first = noise * [1, 2, 3] + [0, 0, 1]
    second = noise * [1, 1, 5] + [2, 0, 0]
    expected = (2**2 + 0 + 1**2) + (0 + 1**2 + 2**2)
    assert conditional.frechet_distance(first, second) == pytest.approx(expected, rel=1e-6)
    assert conditional.frechet_distance(first, first) == pytest.approx(0, abs=1e-8)


def test_frechet_distance_matches_scipy_sqrtm():
    rng = np.random.default_rng(1)
    first = rng.standard_normal((200, 5)) @ rng.standard_normal((5, 5))
    second = rng.standard_normal((300, 5)) @ rng.standard_normal((5, 5)) + 0.3
    c, d = np.cov(first.T), np.cov(second.T)
    expected = ((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(
        c + d - 2 * sqrtm(c @ d).real
    )
    assert conditional.frechet_distance(first, second) == pytest.approx(expected)
    assert conditional.frechet_distance(second, first) == pytest.approx(expected)


def test_moments_are_computed_in_float64():
    features = np.full((50_000, 2), 1000.1, np.float32)
    distance = conditional.frechet_distance(features, features.astype(np.float64))
    assert distance == pytest.approx(0, abs=1e-9)


def test_frechet_distance_with_singular_covariances():
    """Fewer examples than features."""
    few = np.random.default_rng(0).standard_normal((4, 10))
    assert conditional.frechet_distance(few, few + 1) == pytest.approx(10)


def test_unlabelled_test_images_belong_to_no_class(model):
    dataset = make_dataset()
    labels = np.where(dataset.test_labels == 2, -1, dataset.test_labels)
    metrics = compute_metrics(model, replace(dataset, test_labels=labels), characters=60)
    assert np.isfinite(metrics["intra_class_frechet_distance"])


def test_intra_class_distance_with_two_images_per_class(model):
    metrics = compute_metrics(model, make_dataset(test=6), characters=6)
    assert np.isfinite(metrics["intra_class_frechet_distance"])


def test_no_intra_class_distance_with_one_image_per_class(model):
    metrics = compute_metrics(model, make_dataset(test=3), characters=60)
    assert not [name for name in metrics if "intra_class" in name]
    assert np.isfinite(metrics["frechet_distance"])


@pytest.mark.usefixtures("without_jaxtyping")
def test_most_confused_classes():
    """Of five classes, 1 and 4 are confused most, then 2 with both of them, 0 hardly with any."""
    dataset = make_dataset(classes=5)
    confusion = np.eye(5) * 10
    confusion[1, 4] = confusion[4, 2] = 5
    confusion[2, 1] = 1
    confusion[3, 0] = 4

    class UncertainClassifier:
        classes = 5

        def probabilities(self, images):
            rows = confusion[dataset.test_labels]
            assert len(images) == len(rows)
            return rows / rows.sum(axis=1, keepdims=True)

    assert conditional.most_confused(UncertainClassifier(), dataset) == [1, 2, 4]
    assert conditional.most_confused(UncertainClassifier(), dataset, 2) in ([1, 4], [2, 4])


@pytest.mark.usefixtures("without_jaxtyping")
def test_most_confused_classes_of_a_split_without_a_class():
    """No test image of class 0 is labelled; class 1 is taken for 3, seldom for 2."""
    dataset = make_dataset(classes=4)
    dataset.test_labels[dataset.test_labels == 0] = -1

    class UncertainClassifier:
        classes = 4

        def probabilities(self, images):
            del images
            rows = np.eye(4)
            rows[1] = [0, 0.6, 0.1, 0.3]
            return rows[dataset.test_labels]

    assert conditional.most_confused(UncertainClassifier(), dataset, 2) == [1, 3]
    assert conditional.most_confused(UncertainClassifier(), dataset) == [1, 2, 3]


def test_precision_and_recall_count_examples_in_the_balls_of_the_others():
    """Against a loop over all pairs, in float64."""
    rng = np.random.default_rng(0)
    real = rng.normal(size=(60, 2))
    generated = 0.7 * rng.normal(size=(50, 2)) + 1.0

    def radius(examples, index):
        return sorted(np.linalg.norm(examples - examples[index], axis=1))[3]  # the first is 0

    def inside(example, others):
        return any(
            np.linalg.norm(example - other) <= radius(others, index)
            for index, other in enumerate(others)
        )

    precision = np.mean([inside(example, real) for example in generated])
    recall = np.mean([inside(example, generated) for example in real])
    assert 0.3 < recall < precision - 0.1 < 0.9
    result = conditional.precision_recall(generated, real)
    assert result == pytest.approx((precision, recall), abs=1e-12)
    assert conditional.precision_recall(real, real) == (1.0, 1.0)
    assert conditional.precision_recall(real + 100, real) == (0.0, 0.0)


@pytest.mark.parametrize("shapes", [((3, 2), (9, 2)), ((9, 2), (9, 3)), ((9,), (9, 2))])
def test_precision_rejects_other_shapes(shapes, without_jaxtyping):
    del without_jaxtyping
    with pytest.raises(ValueError, match="two arrays of more than 3 rows"):
        conditional.precision_recall(*(np.zeros(shape) for shape in shapes))

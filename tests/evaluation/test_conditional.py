"""What a judge says, against cases whose answer is known."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import make_dataset
from scipy.linalg import sqrtm

from jvae_jax.evaluation import conditional


class Pen:
    """Stands in for a model: draws an image that is the label and z, side by side.

    The second latent changes the character where it is above 1.
    """

    latents, classes, image_shape = 2, 3, (8, 8, 1)


class Reader:
    """Stands in for a eval_classifier: reads what a pen drew; its features are the image's first pixels."""

    accuracy = 0.5

    def __call__(self, images):
        flat = np.asarray(images).reshape(len(images), -1)
        return flat[:, 0].astype(int) % 3, flat[:, 1:4]


def drawn(z, labels):
    z, labels = np.asarray(z), np.zeros(len(z)) if labels is None else np.asarray(labels)
    images = np.zeros((len(z), 64))
    images[:, 0] = np.where(z[:, 1] > 1, (labels + 1) % 3, labels)
    images[:, 1:3] = z
    return jnp.asarray(images.reshape(-1, 8, 8, 1))


def traversed(_model, _variables, z, values, label=None):
    styles = np.tile(np.asarray(z), (2, len(values), 1))
    for dimension in range(2):
        styles[dimension, :, dimension] = values
    labels = None if label is None else np.full(2 * len(values), label)
    return drawn(styles.reshape(-1, 2), labels).reshape(2, -1, 8, 8, 1)


@pytest.fixture
def pen(monkeypatch, without_jaxtyping):
    del without_jaxtyping
    monkeypatch.setattr(
        conditional, "decode", lambda _model, _variables, z, labels: drawn(z, labels)
    )
    monkeypatch.setattr(conditional, "traverse", traversed)
    return Pen()


def marks_of(pen, **options):
    return conditional.conditional_metrics(
        pen, {}, Reader(), make_dataset(), jax.random.key(0), characters=6000, **options
    )


def test_what_is_drawn_is_counted_by_what_was_asked_for(pen):
    marks = marks_of(pen)
    above = 0.1587  # P(z > 1), in which the pen draws the next character
    assert marks["conditional_accuracy"] == pytest.approx(1 - above, abs=0.02)
    confusion = np.array(marks["confusion"])
    np.testing.assert_array_equal(confusion.sum(axis=1), 2000)
    for asked in range(3):
        assert confusion[asked, (asked + 1) % 3] == pytest.approx(2000 * above, rel=0.15)
        assert confusion[asked, (asked + 2) % 3] == 0
        assert marks["conditional_accuracy_per_class"][asked] == confusion[asked, asked] / 2000


def test_an_unsupervised_c_is_asked_by_what_it_means(pen):
    straight, matched = marks_of(pen), marks_of(pen, category_to_class=[1, 2, 0])
    assert matched["conditional_accuracy"] == pytest.approx(1 - straight["conditional_accuracy"])


def test_verdicts_change_only_with_the_dimension_that_changes_them(pen):
    # Of -2, -1.5 ... 2, two are above 1, where the verdict isn't that at 0.
    np.testing.assert_allclose(marks_of(pen)["class_flip_rate_per_latent"], [0, 2 / 9])


def test_a_model_without_classes_is_asked_for_nothing(pen, monkeypatch):
    monkeypatch.setattr(Pen, "classes", 0)
    marks = marks_of(pen)
    assert marks.keys() == {
        "eval_classifier_accuracy",
        "frechet_distance",
        "frechet_distance_real",
        "class_flip_rate_per_latent",
    }


def test_frechet_distance_of_known_moments():
    """Of Gaussians with diagonal covariances: |m - m'|^2 + |s - s'|^2."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((50_000, 3))
    noise = (noise - noise.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(noise.T))).T
    first = noise * [1, 2, 3] + [0, 0, 1]
    second = noise * [1, 1, 5] + [2, 0, 0]
    expected = (2**2 + 0 + 1**2) + (0 + 1**2 + 2**2)
    assert conditional.frechet_distance(first, second) == pytest.approx(expected, rel=1e-6)
    assert conditional.frechet_distance(first, first) == pytest.approx(0, abs=1e-8)


def test_frechet_distance_is_scipys():
    rng = np.random.default_rng(1)
    first = rng.standard_normal((200, 5)) @ rng.standard_normal((5, 5))
    second = rng.standard_normal((300, 5)) @ rng.standard_normal((5, 5)) + 0.3
    c, d = np.cov(first.T), np.cov(second.T)
    expected = ((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(
        c + d - 2 * sqrtm(c @ d).real
    )
    assert conditional.frechet_distance(first, second) == pytest.approx(expected)
    assert conditional.frechet_distance(second, first) == pytest.approx(expected)


def test_few_examples_have_a_distance_too():
    """Covariances of fewer examples than features have no inverse, and need none."""
    few = np.random.default_rng(0).standard_normal((4, 10))
    assert conditional.frechet_distance(few, few + 1) == pytest.approx(10)


def test_unlabelled_test_images_are_of_no_class(pen):
    dataset = make_dataset()
    labels = np.where(dataset.test_labels == 2, -1, dataset.test_labels)
    dataset = replace(dataset, test_labels=labels)
    marks = conditional.conditional_metrics(
        pen, {}, Reader(), dataset, jax.random.key(0), characters=60
    )
    assert np.isfinite(marks["intra_class_frechet_distance"])


def test_classes_of_one_test_image_have_no_distance(pen):
    dataset = make_dataset(test=3)
    marks = conditional.conditional_metrics(
        pen, {}, Reader(), dataset, jax.random.key(0), characters=60
    )
    assert not [name for name in marks if "within_class" in name]
    assert np.isfinite(marks["frechet_distance"])


@pytest.mark.usefixtures("without_jaxtyping")
def test_the_most_confused_are_those_mistaken_for_each_other():
    """Of five classes 1 and 4 are mistaken the most, and 2 for both of them; 0 hardly for any."""
    dataset = make_dataset(classes=5)
    confused = np.eye(5) * 10
    confused[1, 4] = confused[4, 2] = 5
    confused[2, 1] = 1
    confused[3, 0] = 4

    class Unsure:
        classes = 5

        def probabilities(self, images):
            rows = confused[dataset.test_labels]
            assert len(images) == len(rows)
            return rows / rows.sum(axis=1, keepdims=True)

    assert conditional.most_confused(Unsure(), dataset) == [1, 2, 4]
    assert conditional.most_confused(Unsure(), dataset, 2) in ([1, 4], [2, 4])

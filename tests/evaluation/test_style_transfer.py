"""Style transfer metrics, for a model and a classifier with known answers."""

import jax
import numpy as np
import pytest
from helpers import make_dataset

from jvae_jax.evaluation import style_transfer
from jvae_jax.types import Posterior


class FakeModel:
    """Generates images whose first pixels are the label and the style."""

    latents, classes, image_shape = 2, 3, (8, 8, 1)


class FakeClassifier:
    """Predicts the first pixel, but class 0 instead of 2."""

    def __call__(self, images):
        labels = np.asarray(images).reshape(len(images), -1)[:, 0].round().astype(int)
        return np.where(labels == 2, 0, labels), None


NOISE = 0.1


def styles_of(images):
    """The second and third pixels, scaled to [0, 1]."""
    return np.asarray(images).reshape(len(images), -1)[:, 1:3] / 255


@pytest.fixture
def encoded():
    """Styles that the fake model has encoded, of the original images and the restyled ones."""
    return []


@pytest.fixture
def compute_metrics(encoded, monkeypatch, without_jaxtyping):
    del without_jaxtyping
    dataset = make_dataset(test=300)
    rng = np.random.default_rng(0)
    dataset.test_images[:, 0, 1:3, 0] = rng.integers(0, 256, (300, 2))

    def restyle(_model, _variables, images, labels):
        restyled = np.zeros((len(images), len(labels), 64), np.float32)
        restyled[..., 0] = labels
        restyled[..., 1:3] = styles_of(images)[:, None]
        return restyled.reshape(len(images), len(labels), 8, 8, 1)

    def encode(_model, _variables, images):
        style = styles_of(images)
        if len(encoded) % 2:  # restyled
            style[:, 1] = 0.5
            style[:, 0] += NOISE * rng.standard_normal(len(images))
        encoded.append(style)
        return Posterior(style, np.zeros_like(style))

    monkeypatch.setattr(style_transfer, "restyle", restyle)
    monkeypatch.setattr(style_transfer, "encode", encode)
    key = jax.random.key(0)

    def compute(characters=900, **options):
        return style_transfer.style_transfer_metrics(
            FakeModel(), {}, FakeClassifier(), dataset, key, characters=characters, **options
        )

    return compute


def test_r2_of_noisy_and_lost_style(compute_metrics):
    metrics = compute_metrics()
    assert metrics["style_transfer_accuracy"] == pytest.approx(2 / 3)
    first, second = metrics["style_r2_per_latent"]
    variance = 1 / 12  # of a uniform distribution on [0, 1]
    assert first == pytest.approx(1 - NOISE**2 / variance, abs=0.03)
    assert second == pytest.approx(0, abs=0.03)
    assert metrics["style_r2"] == pytest.approx((first + second) / 2, abs=0.03)
    # Shuffled, the squared error of the first latent is twice its variance.
    assert metrics["style_r2_shuffled"] == pytest.approx(-0.56, abs=0.1)


def test_r2_matches_its_definition(compute_metrics, encoded):
    """1 - squared error / variance, per latent and summed over latents."""
    metrics = compute_metrics()
    original, restyled = encoded
    original = original.repeat(3, axis=0)
    errors = ((original - restyled) ** 2).sum(axis=0)
    variances = ((original - original.mean(axis=0)) ** 2).sum(axis=0)
    np.testing.assert_allclose(metrics["style_r2_per_latent"], 1 - errors / variances)
    np.testing.assert_allclose(metrics["style_r2"], 1 - errors.sum() / variances.sum())


@pytest.mark.parametrize(("characters", "images"), [(32, 10), (3, 2), (9000, 300)])
def test_restyles_random_test_images_as_every_class(compute_metrics, encoded, characters, images):
    """At least two images, and at most all."""
    metrics = compute_metrics(characters)
    original, restyled = encoded
    assert (len(original), len(restyled)) == (images, 3 * images)
    image_key, shuffle_key = jax.random.split(jax.random.key(0))
    dataset = make_dataset(test=300)
    dataset.test_images[:, 0, 1:3, 0] = np.random.default_rng(0).integers(0, 256, (300, 2))
    chosen = np.asarray(jax.random.permutation(image_key, 300))[:images]
    np.testing.assert_allclose(original, styles_of(dataset.test_images[chosen]))
    shuffled = restyled[np.asarray(jax.random.permutation(shuffle_key, 3 * images))]
    original = original.repeat(3, axis=0)
    variance = ((original - original.mean(axis=0)) ** 2).sum()
    expected = 1 - ((original - shuffled) ** 2).sum() / variance
    assert metrics["style_r2_shuffled"] == pytest.approx(expected)


@pytest.mark.parametrize(("classes", "images"), [(100, 100), (73, 136)])
@pytest.mark.usefixtures("compute_metrics")
def test_restyles_ten_thousand_images_by_default(monkeypatch, encoded, classes, images):
    monkeypatch.setattr(FakeModel, "classes", classes)
    dataset = make_dataset(test=300)
    style_transfer.style_transfer_metrics(
        FakeModel(), {}, FakeClassifier(), dataset, jax.random.key(0)
    )
    assert len(encoded[0]) == images


def test_category_to_class_maps_requested_class(compute_metrics):
    """c = 0, 1, 2 are classified as 0, 1, 0; their classes are 1, 0, 2."""
    assert compute_metrics(category_to_class=[1, 0, 2])["style_transfer_accuracy"] == 0


def test_r2_is_none_for_a_constant_latent(compute_metrics, monkeypatch):
    def encode(_model, _variables, images):
        style = styles_of(images)
        style[:, 0] = 0.5
        return Posterior(style, np.zeros_like(style))

    monkeypatch.setattr(style_transfer, "encode", encode)
    metrics = compute_metrics()
    assert metrics["style_r2_per_latent"][0] is None
    assert metrics["style_r2_per_latent"][1] == metrics["style_r2"]


def test_r2_needs_a_standard_deviation_of_a_tenth(compute_metrics, monkeypatch):
    def encode(_model, _variables, images):
        style = styles_of(images) - 0.5
        return Posterior(style * [0.11, 0.09] / style.std(axis=0), np.zeros_like(style))

    monkeypatch.setattr(style_transfer, "encode", encode)
    first, second = compute_metrics()["style_r2_per_latent"]
    assert first is not None
    assert second is None


def test_no_r2_if_all_latents_are_constant(compute_metrics, monkeypatch):
    def encode(_model, _variables, images):
        return Posterior(np.zeros((len(images), 2)), np.zeros((len(images), 2)))

    monkeypatch.setattr(style_transfer, "encode", encode)
    assert compute_metrics().keys() == {"style_transfer_accuracy"}

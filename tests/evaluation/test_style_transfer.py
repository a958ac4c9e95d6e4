"""How well styles are kept, against cases whose answer is known."""

import jax
import numpy as np
import pytest
from helpers import make_dataset
from sklearn.metrics import r2_score

from jvae_jax.evaluation import style_transfer
from jvae_jax.types import Posterior


class Pen:
    """Stands in for a model: an image's first pixels are its label and its style."""

    latents, classes, image_shape = 2, 3, (8, 8, 1)


class Reader:
    """Stands in for a eval_classifier, which reads the label, but takes 2 for 0."""

    def __call__(self, images):
        labels = np.asarray(images).reshape(len(images), -1)[:, 0].round().astype(int)
        return np.where(labels == 2, 0, labels), None


NOISE = 0.1


def styles_of(images):
    """From an image's second and third pixels, 0 to 1."""
    return np.asarray(images).reshape(len(images), -1)[:, 1:3] / 255


@pytest.fixture
def measures(monkeypatch, without_jaxtyping):
    del without_jaxtyping
    dataset = make_dataset(test=300)
    rng = np.random.default_rng(0)
    dataset.test_images[:, 0, 1:3, 0] = rng.integers(0, 256, (300, 2))

    def restyle(_model, _variables, images, labels):
        drawn = np.zeros((len(images), len(labels), 64), np.float32)
        drawn[..., 0] = labels
        drawn[..., 1:3] = styles_of(images)[:, None]
        return drawn.reshape(len(images), len(labels), 8, 8, 1)

    def read(_model, _variables, images):
        style = styles_of(images)
        if len(images) == 900:  # what was redrawn
            style[:, 1] = 0.5
            style[:, 0] += NOISE * rng.standard_normal(900)
        return Posterior(style, np.zeros_like(style))

    monkeypatch.setattr(style_transfer, "restyle", restyle)
    monkeypatch.setattr(style_transfer, "read", read)
    key = jax.random.key(0)

    def of(**options):
        about = Pen(), {}, Reader(), dataset, key
        return style_transfer.restyled(*about, characters=900, **options)

    return of


def test_a_style_that_is_lost_counts_nothing(measures):
    found = measures()
    assert found["style_transfer_accuracy"] == pytest.approx(2 / 3)
    first, second = found["style_r2_per_latent"]
    variance = 1 / 12  # of a uniform in 0 to 1
    assert first == pytest.approx(1 - NOISE**2 / variance, abs=0.03)
    assert second == pytest.approx(0, abs=0.03)
    assert found["style_r2"] == pytest.approx((first + second) / 2, abs=0.03)
    # Of what doesn't belong together, the squared error is twice the variance in the first.
    assert found["style_r2_shuffled"] == pytest.approx(-0.56, abs=0.1)


def test_c_is_matched_where_it_is_unsupervised(measures):
    """c = 0, 1, 2 drawn as 0, 1, 0; what they mean is 1, 0, 2."""
    assert measures(category_to_class=[1, 0, 2])["style_transfer_accuracy"] == 0


def test_without_any_style_there_is_none_to_keep(measures, monkeypatch):
    def read(_model, _variables, images):
        return Posterior(np.zeros((len(images), 2)), np.zeros((len(images), 2)))

    monkeypatch.setattr(style_transfer, "read", read)
    assert measures().keys() == {"style_transfer_accuracy"}


def test_r_squared_is_scikit_learns():
    rng = np.random.default_rng(0)
    truth, prediction = rng.standard_normal((2, 100, 3))
    expected = r2_score(truth, prediction, multioutput="raw_values")
    np.testing.assert_allclose(style_transfer.r_squared(truth, prediction), expected)

"""Terms of the losses compared with closed forms, Monte Carlo estimates, scipy and limits."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import stats

from jvae_jax import losses
from jvae_jax.losses._terms import population_weights

SHAPE = (4, 4, 1)


def test_gaussian_kl_matches_closed_form():
    mean, logvar = jnp.array([[0.0, 0.0], [1.0, 0.0]]), jnp.array([[0.0, 0.0], [0.0, math.log(4)]])
    expected = [0.0, 0.5 + 0.5 * (4 - 1 - math.log(4))]
    np.testing.assert_allclose(losses.gaussian_kl(mean, logvar), expected, rtol=1e-6)


def test_gaussian_kl_matches_monte_carlo():
    rng = np.random.default_rng(0)
    mean, logvar = rng.normal(0, 1, (1, 2)), rng.normal(0, 0.5, (1, 2))
    draws = mean + np.exp(logvar / 2) * rng.normal(size=(200_000, 2))
    log_q, log_p = stats.norm.logpdf(draws, mean, np.exp(logvar / 2)), stats.norm.logpdf(draws)
    log_ratios = (log_q - log_p).sum(1)
    error = 4 * log_ratios.std() / math.sqrt(len(log_ratios))
    kl = losses.gaussian_kl(jnp.array(mean, jnp.float32), jnp.array(logvar, jnp.float32))
    assert abs(float(kl[0]) - log_ratios.mean()) < error


def test_categorical_kl_matches_closed_form():
    logits = jnp.log(jnp.array([[0.25] * 4, [0.5, 0.5, 0.0, 0.0], [0.7, 0.1, 0.1, 0.1]]))
    expected = [
        0.0,
        math.log(2),
        math.log(4) + 0.7 * math.log(0.7) + 0.3 * math.log(0.1),
    ]
    np.testing.assert_allclose(losses.categorical_kl(logits), expected, atol=1e-6)


def test_categorical_kl_matches_monte_carlo():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, 5)
    q = np.exp(logits) / np.exp(logits).sum()
    log_ratios = np.log(q * 5)[rng.choice(5, 200_000, p=q)]
    error = 4 * log_ratios.std() / math.sqrt(len(log_ratios))
    kl = losses.categorical_kl(jnp.array(logits[None], jnp.float32))
    assert abs(float(kl[0]) - log_ratios.mean()) < error


def test_label_kl_matches_scipy():
    logits = jnp.array([[1.0, 2.0, 3.0]] * 4)
    q = np.exp([1, 2, 3]) / np.exp([1, 2, 3]).sum()
    prior = np.eye(3)
    expected = [*(stats.entropy(prior[k], q) for k in range(3)), 0.0]
    kl = losses.label_kl(logits, jnp.array([0, 1, 2, -1]))
    np.testing.assert_allclose(kl, expected, rtol=1e-6)


def test_reconstruction_terms_match_scipy():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (3, 2, 2, 2))
    images = rng.integers(0, 2, (3, 2, 2, 2)).astype(float)
    p = 1 / (1 + np.exp(-logits))
    nll = -stats.bernoulli.logpmf(images.astype(int), p).sum((1, 2, 3))
    args = jnp.array(logits, jnp.float32), jnp.array(images, jnp.float32)
    np.testing.assert_allclose(losses.bernoulli_nll(*args), nll, rtol=1e-5)
    error = ((p - images) ** 2).sum((1, 2, 3))
    np.testing.assert_allclose(losses.squared_error(*args), error, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e4, -1e4, 30.0])
def test_terms_and_gradients_are_finite_at_extreme_logits(scale):
    labels = jnp.array([0, 1])
    logits = scale * jnp.array([[1.0, -1.0, 0.0], [1.0, -1.0, 0.0]])
    pixels, images = scale * jnp.ones((2, *SHAPE)), jnp.array([0.0, 1.0])[:, None, None, None]
    images = jnp.broadcast_to(images, pixels.shape)
    for term in (
        losses.categorical_kl,
        partial(losses.label_kl, labels=labels),
    ):
        value, gradient = jax.value_and_grad(lambda x, term=term: term(x).sum())(logits)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
    for term in (losses.bernoulli_nll, losses.squared_error):
        value, gradient = jax.value_and_grad(lambda x, term=term: term(x, images).sum())(pixels)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
    # Limits: log K for a one-hot posterior, the logit for a confident error.
    np.testing.assert_allclose(losses.categorical_kl(jnp.array([[1e4, 0, 0]])), [math.log(3)])
    np.testing.assert_allclose(
        losses.label_kl(jnp.array([[1e4, 0.0, 0.0]]), jnp.array([1])), [1e4], rtol=1e-6
    )


def test_categorical_kl_has_finite_gradients_at_one_hot():
    logits = jnp.array([[0.0, -jnp.inf, -jnp.inf]])
    value, gradient = jax.value_and_grad(lambda x: losses.categorical_kl(x).sum())(logits)
    np.testing.assert_allclose(value, math.log(3), rtol=1e-6)
    assert np.isfinite(gradient).all()


def test_gradients_match_finite_differences():
    rng = np.random.default_rng(0)
    mean, logvar, logits = (jnp.array(rng.normal(size=(2, 3)), jnp.float32) for _ in range(3))
    pixels = jnp.array(rng.normal(size=(2, *SHAPE)), jnp.float32)
    images = jnp.array(rng.uniform(size=(2, *SHAPE)), jnp.float32)
    for term, arguments in (
        (losses.gaussian_kl, (mean, logvar)),
        (losses.categorical_kl, (logits,)),
        (lambda x: losses.label_kl(x, jnp.array([2, 0])), (logits,)),
        (lambda x: losses.bernoulli_nll(x, images), (pixels,)),
        (lambda x: losses.squared_error(x, images), (pixels,)),
    ):
        array_term = lambda *args, term=term: term(*map(jnp.asarray, args))  # noqa: E731
        check_grads(array_term, arguments, order=1, modes=["rev"], atol=2e-2, rtol=2e-2, eps=1e-2)


@pytest.mark.parametrize("labelled", [True, False])
def test_weights_of_a_batch_with_or_without_labels_only(labelled):
    """One group is missing, so the other has the weight of its fraction."""
    weights = population_weights(jnp.full(3, labelled), 0.2, None, jnp.float32)
    np.testing.assert_allclose(weights, 0.2 if labelled else 0.8, rtol=1e-6)


@pytest.mark.usefixtures("without_jaxtyping")
@pytest.mark.parametrize("term", [losses.bernoulli_nll, losses.squared_error])
def test_reconstruction_rejects_other_shapes(term):
    """Shapes that could be broadcast, too."""
    with pytest.raises(ValueError, match=r"\(2, 4, 4, 1\).* shape \(2, 4, 4, 3\)"):
        term(jnp.zeros((2, 4, 4, 1)), jnp.zeros((2, 4, 4, 3)))

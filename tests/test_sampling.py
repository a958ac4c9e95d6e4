import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jvae_jax import sampling


@pytest.mark.parametrize("per_example", [False, True])
def test_gaussian_has_requested_distribution(key, per_example):
    mean, logvar = jnp.full((20_000, 1), 1.5), jnp.full((20_000, 1), 2 * np.log(0.5))
    key = jax.random.split(key, len(mean)) if per_example else key
    draws = np.asarray(sampling.gaussian(key, mean, logvar))[:, 0]
    assert stats.kstest(draws, stats.norm(1.5, 0.5).cdf).pvalue > 1e-3


def test_gaussian_is_differentiable(key):
    mean, logvar = jnp.ones((2, 3)), jnp.zeros((2, 3))
    noise = sampling.standard_normal(key, (2, 3))
    gradient = jax.grad(lambda m, v: sampling.gaussian(key, m, v).sum(), argnums=(0, 1))
    mean_gradient, logvar_gradient = gradient(mean, logvar)
    np.testing.assert_allclose(mean_gradient, 1)
    np.testing.assert_allclose(logvar_gradient, 0.5 * noise, rtol=1e-6)


@pytest.mark.parametrize("per_example", [False, True])
def test_gumbel_softmax_argmax_follows_class_probabilities(key, per_example):
    p, n = np.array([0.6, 0.3, 0.1]), 20_000
    key = jax.random.split(key, n) if per_example else key
    draws = sampling.gumbel_softmax(key, jnp.tile(jnp.log(p), (n, 1)), 0.67)
    np.testing.assert_allclose(draws.sum(1), 1, rtol=1e-5)
    counts = np.bincount(np.argmax(draws, axis=1), minlength=3)
    assert stats.chisquare(counts, n * p).pvalue > 1e-3


def test_gumbel_softmax_limits_of_temperature(key):
    logits = jax.random.normal(key, (100, 4))
    assert np.all(np.max(sampling.gumbel_softmax(key, logits, 1e-3), axis=1) > 0.9)
    np.testing.assert_allclose(sampling.gumbel_softmax(key, logits, 1e4), 0.25, atol=1e-2)


def test_noise_depends_only_on_key_of_example(key):
    keys = jax.random.split(key, 6)
    logits = jax.random.normal(key, (6, 4))
    whole = sampling.gumbel_softmax(keys, logits, 0.67)
    part = sampling.gumbel_softmax(keys[2:4], logits[2:4], 0.67)
    np.testing.assert_array_equal(whole[2:4], part)


def test_one_hot_argmax():
    np.testing.assert_array_equal(
        sampling.one_hot_argmax(jnp.array([[0.1, 3.0, -1.0]])), [[0.0, 1.0, 0.0]]
    )


@pytest.mark.parametrize("per_example", [False, True])
def test_uniform_has_requested_distribution(key, per_example):
    key = jax.random.split(key, 5000) if per_example else key
    draws = np.asarray(sampling.uniform(key, (5000, 2, 2), 0.15))
    assert draws.shape == (5000, 2, 2)
    assert stats.kstest(draws.ravel(), stats.uniform(-0.15, 0.3).cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("purpose", "number"), [("init", 0), ("train", 1), ("test", 2), ("samples", 3), ("order", 4)]
)
def test_keys_of_a_run(purpose, number):
    """They must not change, so that a later version resumes a run with the same noise."""
    expected = jax.random.fold_in(jax.random.key(7), number)
    found = sampling.purpose_key(7, purpose)
    np.testing.assert_array_equal(jax.random.key_data(found), jax.random.key_data(expected))


def test_keys_of_a_step(key):
    """The key folded with the step and the example's index, then split by source of noise."""
    keys = sampling.example_keys(key, 5, jnp.array([2, 0]))
    for row, example in enumerate((2, 0)):
        expected = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, 5), example), 3)
        found = [each[row] for each in (keys.gaussian, keys.gumbel, keys.augmentation)]
        np.testing.assert_array_equal(
            [jax.random.key_data(each) for each in found], jax.random.key_data(expected)
        )


@pytest.mark.parametrize("keys", [1, 3000])
def test_prior_latents_are_normal_and_uniform(keys):
    """And independent of each other."""
    key = jax.random.key(7) if keys == 1 else jax.random.split(jax.random.key(7), keys)
    z, c = np.split(np.asarray(sampling.prior_latents(key, 3000, 3, 4)), [3], axis=1)
    np.testing.assert_array_equal(np.sort(c, axis=1), np.eye(4)[[-1] * 3000])
    np.testing.assert_allclose(c.mean(axis=0), 1 / 4, atol=0.03)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=0.08)
    np.testing.assert_allclose(np.cov(z.T), np.eye(3), atol=0.1)
    np.testing.assert_allclose(z.T @ (c - c.mean(axis=0)) / 3000, 0, atol=0.04)

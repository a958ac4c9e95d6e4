"""Disentanglement scores of codes whose score is known."""

import numpy as np
import pytest

from jvae_jax.evaluation.factors import (
    dci,
    linear_r2,
    mutual_information,
    mutual_information_gap,
    separated_attribute_predictability,
    unsupervised_disentanglement_ranking,
)

EXAMPLES = 4000
RNG = np.random.default_rng(0)
FACTORS = RNG.uniform(-1, 1, (EXAMPLES, 3))
NOISE = RNG.normal(size=(EXAMPLES, 4))


def rotated(angle):
    """The factors and a fourth, unrelated dimension; the first two are rotated."""
    cos, sin = np.cos(angle), np.sin(angle)
    first, second, third = FACTORS.T
    return np.stack([cos * first - sin * second, sin * first + cos * second, third, NOISE[:, 3]], 1)


def halves(z):
    middle = EXAMPLES // 2
    return z[:middle], FACTORS[:middle], z[middle:], FACTORS[middle:]


def test_scores_of_the_factors_themselves_are_1():
    """In another order, with other signs, scales and offsets."""
    z = np.stack([NOISE[:, 0], -3 * FACTORS[:, 2], FACTORS[:, 0] + 9, FACTORS[:, 1]], axis=1)
    np.testing.assert_allclose(linear_r2(*halves(z)), 1, atol=1e-9)
    scores = dci(*halves(z))
    assert min(scores.values()) > 0.98
    assert mutual_information_gap(z, FACTORS) > 0.97
    assert separated_attribute_predictability(z, FACTORS) > 0.99


def test_scores_of_noise_are_0():
    np.testing.assert_allclose(linear_r2(*halves(NOISE)), 0, atol=0.01)
    scores = dci(*halves(NOISE))
    assert scores["disentanglement"] < 0.05
    assert scores["completeness"] < 0.05
    assert scores["informativeness"] < 0
    assert mutual_information_gap(NOISE, FACTORS) < 0.02
    assert separated_attribute_predictability(NOISE, FACTORS) < 0.01


def test_rotation_mixes_factors_without_losing_information():
    """At 45 degrees, two of three factors have two equal dimensions, so that a third remains."""
    mixed, half, none = (rotated(np.deg2rad(angle)) for angle in (45, 20, 0))
    np.testing.assert_allclose(linear_r2(*halves(mixed)), 1, atol=1e-9)
    assert separated_attribute_predictability(mixed, FACTORS) == pytest.approx(1 / 3, abs=0.04)
    # sin^2 and cos^2 of 20 degrees are the R^2 of the two dimensions.
    expected = (2 * np.cos(np.deg2rad(40)) + 1) / 3
    assert separated_attribute_predictability(half, FACTORS) == pytest.approx(expected, abs=0.02)
    gaps = [mutual_information_gap(z, FACTORS) for z in (mixed, half, none)]
    assert gaps[0] == pytest.approx(1 / 3, abs=0.03)
    assert gaps[0] < gaps[1] < gaps[2]
    scores = [dci(*halves(z)) for z in (mixed, none)]
    for name in ("disentanglement", "completeness"):
        # Of 4 dimensions, two are equally important: 1 - log 2 / log 4; of 3 factors likewise.
        assert 0.4 < scores[0][name] < 0.75
    assert scores[0]["informativeness"] > 0.9


def test_mutual_information_of_bins_is_their_entropy():
    """20 bins of a uniform variable have log 20 nats, and independent ones about none."""
    information = mutual_information(FACTORS, FACTORS)
    np.testing.assert_allclose(information.diagonal(), np.log(20), atol=0.02)
    assert information[0, 1] < 0.06


def test_ranking_prefers_models_that_agree():
    """Two models with the same dimensions, up to order and sign, and one that is rotated."""
    same = rotated(0)
    reordered = np.tanh(-2 * same[:, [2, 0, 3, 1]])
    mixed = rotated(np.pi / 4)
    kls = [np.ones(4)] * 3
    scores = unsupervised_disentanglement_ranking([same, reordered, mixed], kls)
    pair = unsupervised_disentanglement_ranking([same, reordered], kls[:2])
    np.testing.assert_allclose(pair, [1, 1], atol=0.08)
    assert scores[2] < min(scores[:2])


def test_ranking_of_unrelated_models_is_0():
    models = [NOISE, RNG.normal(size=NOISE.shape), RNG.normal(size=NOISE.shape)]
    scores = unsupervised_disentanglement_ranking(models, [np.ones(4)] * 3)
    np.testing.assert_allclose(scores, 0, atol=0.03)


def test_ranking_ignores_dimensions_without_information():
    """The fourth dimension, unrelated between the models, has no KL."""
    first, second = rotated(0), rotated(0)
    second[:, 3] = NOISE[:, 0]
    kls = [np.array([2, 1, 1, 0.001])] * 2
    informed = unsupervised_disentanglement_ranking([first, second], kls)
    np.testing.assert_allclose(informed, 1, atol=0.08)
    uninformed = unsupervised_disentanglement_ranking([first, second], [np.ones(4)] * 2)
    np.testing.assert_allclose(uninformed, 3 / 4, atol=0.06)
    nothing = unsupervised_disentanglement_ranking([first, second], [np.zeros(4)] * 2)
    np.testing.assert_array_equal(nothing, 0)


def test_ranking_requires_two_models():
    with pytest.raises(ValueError, match="two or more models, got 1"):
        unsupervised_disentanglement_ranking([NOISE], [np.ones(4)])


def test_constant_dimensions_are_unrelated():
    z = np.column_stack([FACTORS, np.full(EXAMPLES, 7.0)])
    assert separated_attribute_predictability(z, FACTORS) > 0.99
    assert mutual_information_gap(z, FACTORS) > 0.97

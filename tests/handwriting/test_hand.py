"""Hands: averages of posteriors against hand values and simulation, and their files."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from helpers import log_messages

from jvae_jax.handwriting.hand import combine, estimate_hand, load_hand, sample_hand
from jvae_jax.models.inference import to_pixels


@pytest.fixture(scope="module")
def model(digits):
    return replace(digits, name="ours, toy")


@pytest.fixture(scope="module")
def pictures(model):
    z = np.random.default_rng(0).normal(size=(4, 10)).astype(np.float32)
    return to_pixels(np.asarray(model.decode(z, np.arange(4))))


def test_average_is_weighted_by_precision():
    means = np.array([[0.0, 1.0], [3.0, 1.0]])
    variances = np.array([[1.0, 0.5], [0.5, 0.5]])
    mean, variance = combine(means, variances)
    # Precisions 1 and 2: (0 + 2 * 3) / 3; variances 1/3 (1 + 4) + 2/3 (0.5 + 1).
    np.testing.assert_allclose(mean, [2.0, 1.0])
    np.testing.assert_allclose(variance, [5 / 3 + 1.0, 0.5])


def test_variance_is_that_of_the_weighted_mixture():
    rng = np.random.default_rng(0)
    means, variances = rng.normal(size=(5, 3)), rng.uniform(0.1, 2, (5, 3))
    mean, variance = combine(means, variances)
    for dimension in range(3):
        weights = 1 / variances[:, dimension]
        component = rng.choice(5, size=400_000, p=weights / weights.sum())
        noise = rng.normal(size=len(component))
        samples = means[component, dimension] + noise * np.sqrt(variances[component, dimension])
        assert samples.mean() == pytest.approx(mean[dimension], abs=0.01)
        assert samples.var() == pytest.approx(variance[dimension], rel=0.01)


def test_picture_that_tells_nothing_of_a_dimension_counts_little_there():
    mean, _ = combine(np.array([[1.0], [5.0]]), np.array([[0.01], [1.0]]))
    assert mean[0] == pytest.approx((1 / 0.01 + 5) / (1 / 0.01 + 1))


def test_hand_of_one_picture_is_its_posterior(model, pictures):
    hand = estimate_hand(model, pictures[:1])
    posterior = model.encode(pictures[:1])
    np.testing.assert_allclose(hand.z, posterior.mean[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(hand.standard_deviation, np.exp(posterior.logvar[0] / 2), rtol=1e-4)
    assert hand.pictures == 1


def test_hand_of_equal_pictures_is_that_of_one(model, pictures):
    one = estimate_hand(model, pictures[:1])
    three = estimate_hand(model, pictures[:1].repeat(3, axis=0))
    np.testing.assert_allclose(three.z, one.z, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(three.standard_deviation, one.standard_deviation, rtol=1e-3)


def test_styles_vary_by_the_standard_deviation(model, pictures, key):
    hand = estimate_hand(model, pictures)
    styles = hand.styles(20_000, key, 0.5)
    deviations = (styles.mean(axis=0) - hand.z) / (0.5 * hand.standard_deviation)
    assert np.abs(deviations).max() < 5 / np.sqrt(len(styles))
    np.testing.assert_allclose(styles.std(axis=0), 0.5 * hand.standard_deviation, rtol=0.05)
    np.testing.assert_array_equal(hand.styles(2, key, 0.0), [hand.z, hand.z])
    assert styles.dtype == np.float32


def test_sampled_hand_has_the_style_of_the_prior(model, key):
    z = np.stack([sample_hand(model, each).z for each in jax.random.split(key, 50)])
    assert abs(z.mean()) < 0.2
    assert z.std() == pytest.approx(1, abs=0.1)
    assert (sample_hand(model, key).standard_deviation > 0).all()


def test_file_keeps_the_hand_exactly(model, pictures, tmp_path):
    hand = estimate_hand(model, pictures)
    hand.save(tmp_path / "me.hand.json")
    again = load_hand(tmp_path / "me.hand.json", model)
    np.testing.assert_array_equal(again.z, hand.z)
    np.testing.assert_array_equal(again.standard_deviation, hand.standard_deviation)
    assert (again.pictures, again.model, again.fingerprint) == (4, "ours, toy", hand.fingerprint)
    assert (tmp_path / "me.hand.json").stat().st_size < 2000


def test_reads_a_style_that_the_page_saved(model, tmp_path):
    contents = {"model": "ours, toy", "z": [0.5] * 10, "factors": {"slant": 20}}
    (tmp_path / "style.json").write_text(json.dumps(contents))
    with log_messages() as messages:
        hand = load_hand(tmp_path / "style.json", model)
    np.testing.assert_array_equal(hand.z, np.full(10, 0.5, np.float32))
    np.testing.assert_array_equal(hand.standard_deviation, np.zeros(10))
    assert "slant, which a hand doesn't keep" in " ".join(messages)
    (tmp_path / "style.json").write_text(json.dumps(contents | {"factors": 5, "pictures": -3}))
    assert load_hand(tmp_path / "style.json", model).pictures == 0


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ("", "isn't a JSON file"),
        ("[1, 2]", "it holds no style z"),
        ('{"z": "ab"}', "its z isn't a list of numbers"),
        ('{"z": [1, NaN, 1, 1, 1, 1, 1, 1, 1, 1]}', "its z isn't a list of numbers"),
        ('{"z": [true, 1, 1, 1, 1, 1, 1, 1, 1, 1]}', "its z isn't a list of numbers"),
        ('{"z": [1e300, 1, 1, 1, 1, 1, 1, 1, 1, 1]}', "its z isn't a list of numbers up to 100"),
        ('{"z": [1' + "0" * 400 + "]}", "its z isn't a list of numbers up to 100"),
        ("[" * 100_000, "isn't a hand"),
        ('{"z": [1, 2]}', "have 2 and 2 dimensions, z of ours, toy has 10"),
        ('{"z": [0,0,0,0,0,0,0,0,0,0], "standard_deviation": [1]}', "10 and 1 dimensions"),
        (
            '{"z": [0,0,0,0,0,0,0,0,0,0], "standard_deviation": [-1,0,0,0,0,0,0,0,0,0]}',
            "a standard deviation is below 0",
        ),
        ('{"z": [0,0,0,0,0,0,0,0,0,0], "model": "vae"}', "is of another model, 'vae'"),
        (" " * 2_000_000, "it has 2,000,000 bytes"),
    ],
)
@pytest.mark.fault(
    "hands", "file that isn't of a hand, or of another model's", "refused, saying why"
)
def test_rejects_other_files(contents, message, model, tmp_path):
    path = tmp_path / "me.hand.json"
    path.write_text(contents)
    with pytest.raises(ValueError, match=message):
        load_hand(path, model)


def test_rejects_the_hand_of_another_model_of_the_same_name(model, pictures, tmp_path):
    estimate_hand(model, pictures).save(tmp_path / "me.hand.json")
    variables = jax.tree.map(lambda each: each * 1.01, model.variables)
    with pytest.raises(ValueError, match="is of another model, ours, toy, in another training"):
        load_hand(tmp_path / "me.hand.json", replace(model, variables=variables))


def test_missing_file_names_the_command(model, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no hand .*me\.json; `jvae hand` makes"):
        load_hand(tmp_path / "me.json", model)


def test_needs_a_picture(model):
    with pytest.raises(ValueError, match="a hand needs one picture or more"):
        estimate_hand(model, np.zeros((0, 32, 32, 1), np.uint8))

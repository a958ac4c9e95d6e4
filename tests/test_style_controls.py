"""Control of the style by name, of a decoder that draws bars of known slant and thickness."""

import json

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from helpers import make_dataset

from jvae_jax import TrainedModel, generation, style_controls
from jvae_jax.evaluation.morphology import measure
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.models.inference import to_pixels
from jvae_jax.style_controls import FACTORS, StyleControls, adjust_style, fit_style_controls
from jvae_jax.types import Posterior

MODEL = Autoencoder((32, 32, 1), 3, 2)
SLANTS, THICKNESSES = np.array([0.0, 5.0, 0.0]), np.array([3.0, 4.0, 3.0])


def decode(_model, _variables, z, labels):
    """Pairs of bars of height 20, slanted by z[0] and z[2], whose thickness follows z[1]."""
    z, labels = np.asarray(z, np.float64), np.asarray(labels)
    slant = SLANTS[labels] + 6 * z[:, 0] + 3 * z[:, 2]
    thickness = (THICKNESSES[labels] + 0.4 * z[:, 1]).clip(1)
    y, x = np.mgrid[:32, :32] - 15.5
    angle = np.deg2rad(slant)[:, None, None]
    distance = np.abs(np.abs(x + np.tan(angle) * y) - 5) * np.cos(angle)
    ink = (thickness[:, None, None] / 2 + 0.5 - distance).clip(0, 1) * (np.abs(y) <= 10)
    return jnp.asarray(ink[..., None], jnp.float32)


def encode(_model, _variables, images):
    z = np.random.default_rng(0).normal(size=(len(images), 3))
    logits = np.eye(2)[np.arange(len(images)) % 2]
    return Posterior(*(jnp.asarray(each, jnp.float32) for each in (z, 0 * z, logits)))


@pytest.fixture(autouse=True, scope="module")
def bars():
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        for module in (style_controls, generation):
            monkeypatch.setattr(module, "decode", decode)
            monkeypatch.setattr(module, "encode", encode)
        monkeypatch.setattr(style_controls, "_REQUESTS", 64)
        yield


@pytest.fixture(scope="module")
def controls(bars):
    del bars
    dataset = make_dataset(train=300, size=32)
    return fit_style_controls(MODEL, {}, dataset, jax.random.key(0))


def draw(z, labels):
    morphology = measure(to_pixels(np.asarray(decode(None, None, z, labels))))
    return {name: getattr(morphology, name) for name in FACTORS}


def test_maps_and_ranges_are_those_of_the_bars(controls):
    np.testing.assert_allclose(controls.weights[:, 0], [[6, 0, 3], [6, 0, 3]], atol=0.4)
    np.testing.assert_allclose(controls.weights[:, 1], [[0, 0.4, 0], [0, 0.4, 0]], atol=0.1)
    np.testing.assert_allclose(controls.intercepts[:, 0], SLANTS[:2], atol=0.5)
    # The 95 % quantile of a normal distribution is 1.645 standard deviations above its mean.
    reach = 1.645 * np.hypot(6, 3)
    np.testing.assert_allclose(controls.highest[:, 0], SLANTS[:2] + reach, atol=3)
    np.testing.assert_allclose(controls.lowest[:, 0], SLANTS[:2] - reach, atol=3)


def test_slant_and_thickness_are_controlled_and_height_is_not(controls):
    r2 = dict(zip(FACTORS, controls.r2, strict=True))
    assert r2["slant"] > 0.99
    assert r2["thickness"] > 0.85
    assert r2["height"] < 0.5
    assert controls.controlled[:2] == ("slant", "thickness")
    assert "height" not in controls.controlled


def test_adjusted_characters_have_the_requested_slant(controls):
    """Thickness stays, and the change of z is little more than the smallest."""
    rng = np.random.default_rng(1)
    z, labels = 0.7 * rng.normal(size=(20, 3)), np.arange(20) % 2
    slant = np.linspace(-10, 15, 20)
    adjusted = adjust_style(MODEL, {}, controls, z, labels, {"slant": slant})
    before, after = draw(z, labels), draw(adjusted, labels)
    np.testing.assert_allclose(after["slant"], slant, atol=0.5)
    np.testing.assert_allclose(after["thickness"], before["thickness"], atol=0.3)
    smallest = np.abs(slant - before["slant"]) / np.hypot(6, 3)
    assert (np.linalg.norm(adjusted - z, axis=1) < 1.3 * smallest + 0.6).all()


def test_factors_are_adjusted_together(controls):
    z, labels = np.zeros((2, 3)), np.array([0, 1])
    requested = {"slant": np.array([12.0, -3.0]), "thickness": np.array([3.4, 3.9])}
    after = draw(adjust_style(MODEL, {}, controls, z, labels, requested), labels)
    for name, values in requested.items():
        np.testing.assert_allclose(after[name], values, atol=0.5)


def test_maps_are_quadratic(monkeypatch):
    def decode_bent(model, variables, z, labels):
        z = np.array(z)
        z[:, 0] += 0.3 * z[:, 0] * z[:, 1]
        return decode(model, variables, z, labels)

    monkeypatch.setattr(style_controls, "decode", decode_bent)
    controls = fit_style_controls(MODEL, {}, make_dataset(train=300, size=32), jax.random.key(0))
    expected = np.zeros((3, 3))
    expected[0, 1] = expected[1, 0] = 6 * 0.3 / 2
    np.testing.assert_allclose(controls.quadratic[:, 0], [expected] * 2, atol=0.2)
    z, labels = np.random.default_rng(0).normal(size=(50, 3)), np.arange(50) % 2
    moved = z + 1e-6 * np.eye(3)[1]
    slopes = (controls.estimate(moved, labels) - controls.estimate(z, labels)) / 1e-6
    np.testing.assert_allclose(controls.jacobian(z, labels)[..., 1], slopes, atol=1e-4)
    assert controls.map_r2[0] > 0.9


def test_by_map_alone_nothing_is_decoded(controls, monkeypatch):
    monkeypatch.setattr(style_controls, "decode", None)
    z, labels = np.zeros((2, 3)), np.array([0, 1])
    requested = {"slant": np.array([8.0, -2.0])}
    after = draw(adjust_style(MODEL, {}, controls, z, labels, requested, by_map=True), labels)
    np.testing.assert_allclose(after["slant"], requested["slant"], atol=1)


def test_survives_json(controls):
    restored = StyleControls.from_json(controls.to_json())
    for name, value in vars(controls).items():
        np.testing.assert_allclose(getattr(restored, name), value, atol=5.1e-5)  # four decimals


def test_a_class_without_images_is_refused_and_the_others_are_controlled(monkeypatch):
    def encode_two(model, variables, images):
        posterior = encode(model, variables, images)
        return posterior._replace(logits=jnp.pad(posterior.logits, ((0, 0), (0, 1))))

    monkeypatch.setattr(style_controls, "encode", encode_two)
    network = Autoencoder((32, 32, 1), 3, 3)
    dataset = make_dataset(train=300, size=32)
    fitted = fit_style_controls(network, {}, dataset, jax.random.key(0))
    assert fitted.fitted_classes.tolist() == [0, 1]
    assert fitted.controlled[:2] == ("slant", "thickness")
    text = json.dumps(fitted.to_json(), allow_nan=False)
    assert StyleControls.from_json(json.loads(text)).fitted_classes.tolist() == [0, 1]
    model = TrainedModel(
        network=network, variables={}, class_names=("a", "b", "c"), style_controls=fitted
    )
    with pytest.raises(ValueError, match="no training image is of class c"):
        model.adjust_style(np.zeros((1, 3), np.float32), "c", slant=3.0)


@pytest.fixture
def model(controls):
    return TrainedModel(
        network=MODEL,
        variables={},
        class_names=("a", "b"),
        name="bars",
        style_controls=controls,
    )


def test_samples_have_the_requested_slant(model):
    """In all rows and columns, whose thickness is that of the styles' draws."""
    images = model.sample(["b", "a"], key=jax.random.key(3), columns=4, slant=5.0)
    assert images.shape == (2, 4, 32, 32, 1)
    measured = measure(to_pixels(np.asarray(images.reshape(8, 32, 32, 1))))
    np.testing.assert_allclose(measured.slant, 5, atol=0.7)
    z = np.tile(jax.random.normal(jax.random.key(3), (4, 3)), (2, 1))
    unadjusted = draw(z, [1, 1, 1, 1, 0, 0, 0, 0])
    assert np.ptp(unadjusted["slant"]) > 5
    np.testing.assert_allclose(measured.thickness, unadjusted["thickness"], atol=0.2)


def test_sweeps_from_the_lowest_to_the_highest_value(model):
    images = model.sweep("slant", [0.1, 0.0, 0.0], "b", steps=5, thickness=4.2)
    measured = measure(to_pixels(np.asarray(images)))
    lowest, highest = model.style_controls.lowest[1, 0], model.style_controls.highest[1, 0]
    np.testing.assert_allclose(measured.slant, np.linspace(lowest, highest, 5), atol=1)
    np.testing.assert_allclose(measured.thickness, 4.2, atol=0.3)


@pytest.mark.fault("library input", "slant beyond the training data's", "clipped, with a warning")
def test_values_beyond_the_range_are_clipped(model, caplog):
    z = np.zeros((1, 3), np.float32)
    with caplog.at_level("WARNING"):
        adjusted = model.adjust_style(z, "a", slant=80.0)
    (message,) = caplog.messages
    assert message.startswith("slant=80 is beyond the range of the training data, in degrees")
    highest = model.style_controls.highest[0, 0]
    assert f"to {highest:.1f})" in message
    np.testing.assert_allclose(draw(adjusted, [0])["slant"], highest, atol=1)


@pytest.mark.fault("library input", "style control that can't be", "refused with the reason")
@pytest.mark.parametrize(
    ("factors", "changes", "message"),
    [
        ({"tilt": 3.0}, {}, "unknown factor 'tilt'; there are slant, thickness, width, height"),
        ({"height": 20.0}, {}, "bars doesn't control height: R\\^2 of requested and measured"),
        ({"slant": np.nan}, {}, "slant must be finite, got nan"),
        ({"slant": 3.0}, {"style_controls": None}, "bars has no style controls; model.fit_style"),
        (
            {"slant": 3.0},
            {"network": Autoencoder((32, 32, 1), 3, 0)},
            "bars has no classes, so its style can't be controlled by name",
        ),
    ],
)
def test_reports_controls_that_cannot_be(model, factors, changes, message):
    changed = TrainedModel(**{**vars(model), **changes})
    with pytest.raises(ValueError, match=message):
        changed.adjust_style(np.zeros((1, 3), np.float32), 0, **factors)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model, z: model.adjust_style(z[0], "a", slant=1), "z must be \\(batch, 3\\)"),
        (lambda model, z: model.adjust_style(z, ["a", "b"], slant=1), "a label for each of 4"),
        (lambda model, z: model.adjust_style(z, "a", slant=[1, 2]), "one for each of 4 styles"),
        (lambda model, z: model.sweep("slant", z[0], "a", steps=1), "steps must be 2 or more"),
        (
            lambda model, _: model.sample([], key=jax.random.key(0), slant=1.0),
            "labels and columns must be above 0, got 0 and 10",
        ),
    ],
)
def test_reports_shapes_that_do_not_fit(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model, np.zeros((4, 3), np.float32))


@pytest.mark.fault("library input", "style controls of colours or no class", "refused")
@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Autoencoder((32, 32, 1), 3, 0), "a model without classes has no style controls"),
        (Autoencoder((32, 32, 3), 3, 2), "style controls need a model of grey images"),
    ],
)
def test_refuses_to_fit(network, message):
    with pytest.raises(ValueError, match=message):
        fit_style_controls(network, {}, make_dataset(), jax.random.key(0))

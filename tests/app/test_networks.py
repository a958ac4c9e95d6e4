"""The page's networks, framing and style controls beside those in Python."""

import jax
import numpy as np
import pytest
from helpers import encode_image, stroke_image
from paper.photographs import CONDITIONS, photograph
from random_models import NETWORKS, random_controls, random_model

from jvae_jax import data
from jvae_jax.data import framing
from jvae_jax.style_controls import StyleControls, adjust_style

pytestmark = pytest.mark.long


@pytest.fixture(params=NETWORKS)
def model(request):
    return random_model(NETWORKS[request.param])


def test_decoded_images_are_those_of_jax(visit, model):
    page = visit(model).page
    z = np.random.default_rng(0).normal(size=(100, model.network.latents)).astype(np.float32)
    labels = np.arange(100) % model.network.classes if model.has_classes else None
    expected = np.asarray(model.decode(z, labels)).reshape(100, -1)
    decoded = page.evaluate(
        "([z, labels]) => z.map((each, i) => Array.from(model.decode(each, labels[i]), sigmoid))",
        [z.tolist(), [None] * 100 if labels is None else labels.tolist()],
    )
    assert expected.std() > 0.01
    np.testing.assert_allclose(decoded, expected, atol=0.1 / 255)  # of single precision


def test_encoded_images_are_those_of_jax(visit, model):
    page = visit(model).page
    shape = 10, *model.network.image_shape
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    posterior = model.encode(images)
    encoded = page.evaluate(
        "images => images.map((image) => { const { z, probabilities } = model.encode(image);"
        "return [Array.from(z), Array.from(probabilities)] })",
        (images.reshape(10, -1) / 255).tolist(),
    )
    np.testing.assert_allclose([z for z, _ in encoded], posterior.mean, rtol=1e-4, atol=1e-4)
    if model.has_classes:
        expected = jax.nn.softmax(posterior.logits)
        np.testing.assert_allclose([p for _, p in encoded], expected, atol=1e-5)


def test_styles_are_those_of_the_maps(visit):
    network = NETWORKS["categorical"]
    controls = random_controls(network, [1, 1, 1, 0])
    model = random_model(network, style_controls=controls)
    page = visit(model).page
    rng = np.random.default_rng(1)
    z = rng.normal(size=(20, network.latents)).round(2)
    labels = np.arange(20) % network.classes
    slants, widths = rng.uniform(-3, 3, (2, 20)).round(2)
    # Maps are stored with four decimals.
    controls = StyleControls.from_json(controls.to_json())
    expected = adjust_style(
        network,
        model.variables,
        controls,
        z,
        labels,
        {"slant": slants, "width": widths},
        by_map=True,
    )
    assert np.abs(expected - z).max() > 0.1
    styles = page.evaluate(
        "cases => cases.map(([z, label, slant, width]) => {"
        "style.z = Float64Array.from(z); return Array.from(styleOf(label, {slant, width})) })",
        [list(case) for case in zip(z.tolist(), labels.tolist(), slants, widths, strict=True)],
    )
    np.testing.assert_allclose(styles, expected, atol=1e-6)


def test_clipped_to_the_range_of_the_class(visit):
    network = NETWORKS["categorical"]
    model = random_model(network, style_controls=random_controls(network, [1, 1, 1, 1]))
    page = visit(model).page
    beyond, highest = page.evaluate("[100, 3].map((slant) => Array.from(styleOf(2, {slant})))")
    assert beyond == highest


def frame_in_browser(visit, file):
    """The framed image of an uploaded file, uint8."""
    visit.choose("Upload", {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": file})
    visit.page.wait_for_selector("#reading:not([hidden])")
    image = visit.page.evaluate("Array.from(padImage().image)")
    visit.page.get_by_role("button", name="Clear").click()
    height, width, _ = visit.page.evaluate("model.imageShape")
    return np.round(np.reshape(image, (height, width)) * 255)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_photos_are_framed_as_in_python(visit, mnist_files, condition):
    digits = data.load("mnist", mnist_files).test_images[:4]
    model = random_model(NETWORKS["categorical"])
    estimated = framing.estimate_framing(digits)
    vars(model)["framing"] = estimated
    page = visit(model)
    rng = np.random.default_rng(0)
    errors, inks = [], []
    for digit in digits:
        file = photograph(digit[..., 0], condition, rng)
        expected = model.load_image(file)[0, ..., 0].astype(float)
        errors.append(np.abs(frame_in_browser(page, file) - expected).mean())
        inks.append(expected.mean())
    assert np.median(errors) < 0.15 * np.median(inks)


def test_drawing_is_framed_as_in_python(visit):
    model = random_model(NETWORKS["categorical"])
    vars(model)["framing"] = framing.Framing(0.6, 0.5, 0.5, 0, 250, 0.1)
    file = encode_image(stroke_image((64, 64)))
    framed = frame_in_browser(visit(model), file)
    expected = model.load_image(file)[0, ..., 0].astype(float)
    assert np.abs(framed - expected).mean() < 0.15 * expected.mean()


def test_strokes_are_segmented_and_measured_as_in_python(visit):
    page = visit(random_model(NETWORKS["continuous"])).page
    y, x = np.mgrid[:256, :256] - 127.5
    inside = np.maximum(np.abs(x), np.abs(y)) < 90
    strokes = {
        "bar": inside & (np.abs(x) < 10),
        "slanted": inside & (np.abs(x - 0.36 * y) < 11),
        "wide and diagonal": inside & (np.abs(x - y) < 45),
        "ring": np.abs(np.hypot(x, y) - 70) < 11,
        "two": inside & ((np.abs(x + 60) < 8) | ((np.abs(x - 60) < 8) & (y > 0))),
    }
    cases = [*((name, mask, 0.0) for name, mask in strokes.items()), ("two", strokes["two"], 0.7)]
    for name, mask, gap in cases:
        pixels = np.where(mask, 20, 230).astype(np.uint8)
        expected = framing.segment_character(pixels, gap)
        count, groups, thickness = page.evaluate(
            "([pixels, gap]) => { const { mask, groups } = segment(Float64Array.from(pixels), gap);"
            "return [mask.reduce((a, b) => a + b), groups, strokeThickness(mask)] }",
            [pixels.ravel().tolist(), gap],
        )
        assert count == pytest.approx(expected.mask.sum(), rel=0.01), name
        assert groups == expected.groups, name
        assert thickness == pytest.approx(framing._thickness(expected.mask), rel=0.1), name

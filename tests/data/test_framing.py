"""Framing of photos and drawings, compared with the characters in the datasets."""

import io

import numpy as np
import pytest
from PIL import Image

from jvae_jax import data
from jvae_jax.data import framing
from jvae_jax.data.framing import Framing

MNIST_LIKE = Framing(extent=0.6875, row=0.52, column=0.52, background=0.0, ink=255.0)


def png(pixels, mode=None):
    file = io.BytesIO()
    Image.fromarray(pixels, mode).save(file, "png")
    return file.getvalue()


def bar(size, top, left, height, width, background, ink):
    pixels = np.full((size, size), background, np.uint8)
    pixels[top : top + height, left : left + width] = ink
    return pixels


@pytest.mark.parametrize(("background", "ink"), [(255, 0), (0, 255), (200, 90), (30, 120)])
def test_matches_extent_position_and_brightness(background, ink):
    """A bar of 40 x 10 in a corner becomes one of 22 x 5.5 around the framing's centre."""
    photo = png(bar(200, 10, 140, 40, 10, background, ink))
    framed = framing.frame_image(photo, MNIST_LIKE, (32, 32, 1))
    assert framed.shape == (1, 32, 32, 1)
    assert framed.dtype == np.uint8
    bright = framed[0, ..., 0] > 127
    rows, columns = np.nonzero(bright)
    assert np.ptp(rows) + 1 == 22
    assert np.ptp(columns) + 1 in (5, 6)
    assert abs(rows.mean() + 0.5 - 0.52 * 32) < 0.5
    assert abs(columns.mean() + 0.5 - 0.52 * 32) < 0.5
    assert framed.min() == 0
    assert framed.max() >= 250


def test_frames_drawings_on_transparent_background():
    """As exported by a canvas: black strokes, transparent elsewhere."""
    pixels = np.zeros((100, 100, 4), np.uint8)
    pixels[20:60, 45:55, 3] = 255
    framed = framing.frame_image(png(pixels, "RGBA"), MNIST_LIKE, (32, 32, 1))
    assert (framed > 127).sum() in range(22 * 5, 22 * 6 + 1)


def test_estimates_framing_from_images():
    images = np.stack([bar(64, 16, 24, 32, 8, 10, 210)] * 3)[..., None]
    estimate = framing.estimate_framing(images)
    assert estimate == Framing(extent=0.5, row=0.5, column=28 / 64, background=10.0, ink=210.0)


def test_estimate_is_the_median_of_images_with_ink():
    """Of bars of height 16, 32 and 48 in different places, and of a blank image."""
    bars = [bar(64, 0, 0, 16, 8, 0, 200), bar(64, 16, 24, 32, 8, 10, 210)]
    images = np.stack([*bars, bar(64, 16, 56, 48, 8, 40, 250), np.zeros((64, 64), np.uint8)])
    estimate = framing.estimate_framing(images[..., None])
    assert estimate == Framing(extent=0.5, row=0.5, column=28 / 64, background=10.0, ink=210.0)


def test_ink_stands_out_by_half_of_the_greatest_contrast():
    """Faint and small differences aren't ink; its brightness is the 90th percentile."""
    pixels = np.full((64, 64), 20, np.uint8)
    pixels[10:20, 10:20] = 119  # less than half of the contrast of 200
    pixels[32:42, 30:40] = 121
    pixels[32:34, 30:40] = 220
    estimate = framing.estimate_framing(pixels[None, ..., None])
    ink = np.percentile([121.0] * 80 + [220.0] * 20, 90)
    assert estimate == Framing(extent=10 / 64, row=37 / 64, column=35 / 64, background=20, ink=ink)
    for contrast, has_ink in ((24, False), (25, True)):
        faint = bar(64, 16, 24, 32, 8, 100, 100 + contrast)[None, ..., None]
        if has_ink:
            assert framing.estimate_framing(faint).ink == 100 + contrast
        else:
            with pytest.raises(ValueError, match="none of 1 images"):
                framing.estimate_framing(faint)


def test_estimate_of_wide_images_is_relative_to_height_and_width():
    """The extent is relative to the longer side."""
    pixels = np.zeros((32, 64), np.uint8)
    pixels[8:16, 16:48] = 200
    estimate = framing.estimate_framing(pixels[None, ..., None])
    assert estimate == Framing(extent=0.5, row=12 / 32, column=0.5, background=0.0, ink=200.0)


def test_recovers_digits_from_simulated_photos():
    """MNIST digits, enlarged, dark on noisy paper and off-centre, are restored."""
    digits = data.load("mnist_5k").test_images[:200:10]
    estimate = framing.estimate_framing(digits)
    rng = np.random.default_rng(0)
    errors = []
    for digit in digits:
        large = np.asarray(Image.fromarray(digit[..., 0]).resize((160, 160)), np.float32)
        paper = rng.normal(200, 4, (300, 260))
        paper[90:250, 30:190] -= large * 0.6
        photo = png(paper.clip(0, 255).astype(np.uint8))
        restored = framing.frame_image(photo, estimate, (32, 32, 1))[0]
        expected = framing.frame_image(png(digit[..., 0]), estimate, (32, 32, 1))[0]
        errors.append(np.mean((restored / 255.0 - expected / 255.0) ** 2))
    assert np.median(errors) < 0.01  # the error of a blank image is 0.1


@pytest.mark.fault("library input", "photo that is blank or unreadable", "refused with the reason")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png(np.full((50, 50), 255, np.uint8)), "nothing is drawn on it"),
        (png(np.zeros((50, 50, 4), np.uint8), "RGBA"), "nothing is drawn on it"),
        (b"not an image", "not an image that Pillow can read"),
        (b"", "not an image that Pillow can read"),
    ],
)
def test_reports_blank_and_unreadable_images(content, message):
    with pytest.raises(ValueError, match=message):
        framing.frame_image(content, MNIST_LIKE, (32, 32, 1))


def test_only_resizes_colour_images():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
    framed = framing.frame_image(png(pixels), MNIST_LIKE, (16, 16, 3))
    np.testing.assert_array_equal(framed[0], pixels)


def test_reports_images_without_ink():
    with pytest.raises(ValueError, match="none of 2 images"):
        framing.estimate_framing(np.zeros((2, 8, 8, 1), np.uint8))

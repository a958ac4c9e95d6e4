"""Pictures as people make them, against the same characters as the data have them."""

import io

import numpy as np
import pytest
from PIL import Image

from jvae_jax import data
from jvae_jax.data import framing
from jvae_jax.data.framing import Frame
from jvae_jax.models.autoencoder import Autoencoder

MNIST_LIKE = Frame(extent=0.6875, row=0.52, column=0.52, ground=0.0, ink=255.0)


def png(pixels, mode=None):
    file = io.BytesIO()
    Image.fromarray(pixels, mode).save(file, "png")
    return file.getvalue()


def block(size, top, left, height, width, ground, ink):
    pixels = np.full((size, size), ground, np.uint8)
    pixels[top : top + height, left : left + width] = ink
    return pixels


@pytest.mark.parametrize(("ground", "ink"), [(255, 0), (0, 255), (200, 90), (30, 120)])
def test_size_place_and_brightness_become_the_frames(ground, ink):
    """A bar of 40 x 10 in a corner becomes one of 22 x 5.5 around the frame's centre."""
    found = framing.framed(png(block(200, 10, 140, 40, 10, ground, ink)), MNIST_LIKE, (32, 32, 1))
    assert found.shape == (1, 32, 32, 1)
    assert found.dtype == np.uint8
    bright = found[0, ..., 0] > 127
    rows, columns = np.nonzero(bright)
    assert np.ptp(rows) + 1 == 22
    assert np.ptp(columns) + 1 in (5, 6)
    assert abs(rows.mean() + 0.5 - 0.52 * 32) < 0.5
    assert abs(columns.mean() + 0.5 - 0.52 * 32) < 0.5
    assert found.min() == 0
    assert found.max() >= 250


def test_a_drawing_on_nothing_is_ink_on_paper():
    """What a canvas gives: black strokes, transparent elsewhere."""
    pixels = np.zeros((100, 100, 4), np.uint8)
    pixels[20:60, 45:55, 3] = 255
    found = framing.framed(png(pixels, "RGBA"), MNIST_LIKE, (32, 32, 1))
    assert (found > 127).sum() in range(22 * 5, 22 * 6 + 1)


def test_a_frame_is_measured_from_images():
    images = np.stack([block(64, 16, 24, 32, 8, 10, 210)] * 3)[..., None]
    frame = framing.frame_of(images)
    assert frame == Frame(extent=0.5, row=0.5, column=28 / 64, ground=10.0, ink=210.0)


def test_a_photograph_of_a_digit_is_what_the_digit_was():
    """MNIST's own digits, enlarged, dark on noisy paper and off the middle, come back."""
    digits = data.load("mnist_5k", say=lambda _: None).test_images[:200:10]
    frame = framing.frame_of(digits)
    rng = np.random.default_rng(0)
    errors = []
    for digit in digits:
        large = np.asarray(Image.fromarray(digit[..., 0]).resize((160, 160)), np.float32)
        paper = rng.normal(200, 4, (300, 260))
        paper[90:250, 30:190] -= large * 0.6
        photo = png(paper.clip(0, 255).astype(np.uint8))
        found = framing.framed(photo, frame, (32, 32, 1))[0]
        own = framing.framed(png(digit[..., 0]), frame, (32, 32, 1))[0]
        errors.append(np.mean((found / 255.0 - own / 255.0) ** 2))
    assert np.median(errors) < 0.01  # a blank image is off by 0.1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png(np.full((50, 50), 255, np.uint8)), "nothing is drawn on it"),
        (png(np.zeros((50, 50, 4), np.uint8), "RGBA"), "nothing is drawn on it"),
        (b"not a picture", "no picture that Pillow reads"),
        (b"", "no picture that Pillow reads"),
    ],
)
def test_what_shows_nothing_is_told(content, message):
    with pytest.raises(ValueError, match=message):
        framing.framed(content, MNIST_LIKE, (32, 32, 1))


def test_coloured_pictures_are_only_resized():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
    found = framing.framed(png(pixels), MNIST_LIKE, (16, 16, 3))
    np.testing.assert_array_equal(found[0], pixels)


def test_images_without_ink_have_no_frame():
    with pytest.raises(ValueError, match="none of 2 images"):
        framing.frame_of(np.zeros((2, 8, 8, 1), np.uint8))


def test_a_model_is_measured_by_what_it_draws(monkeypatch):
    """In every class; here, one that draws blocks of 8 to 10 rows."""
    asked = []

    def decode(_model, _variables, z, labels):
        asked.extend(np.asarray(labels).tolist())
        images = [block(32, 12, 14, 8 + label, 4, 0, 255) for label in asked]
        assert len(images) == len(z)
        return np.stack(images)[..., None] / 255

    monkeypatch.setattr(framing, "decode", decode)
    frame = framing.frame_of_characters(Autoencoder((32, 32, 1), 2, 3), {})
    assert frame == Frame(extent=9 / 32, row=16.5 / 32, column=0.5, ground=0.0, ink=255.0)
    assert set(asked) == {0, 1, 2}

"""Framing of photos and drawings, compared with the characters in the datasets."""

import io

import numpy as np
import pytest
from paper.photographs import CONDITIONS, photograph
from PIL import Image

from jvae_jax import data
from jvae_jax.data import framing
from jvae_jax.data.framing import Framing
from jvae_jax.evaluation import classifier
from jvae_jax.models.inference import scale_pixels

MNIST_LIKE = Framing(
    extent=0.6875, row=0.52, column=0.52, background=0.0, ink=255.0, thickness=0.08
)


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
    assert (framed > 127).sum() == pytest.approx(22 * 5.5, abs=13)


def test_estimates_framing_from_images():
    images = np.stack([bar(64, 16, 24, 32, 8, 10, 210)] * 3)[..., None]
    estimate = framing.estimate_framing(images)
    assert estimate[:5] == (0.5, 0.5, 28 / 64, 10.0, 210.0)
    assert estimate.thickness == pytest.approx(8 / 64, rel=0.1)


def test_estimate_is_the_median_of_images_with_ink():
    """Of bars of height 16, 32 and 48 in different places, and of a blank image."""
    bars = [bar(64, 0, 0, 16, 8, 0, 200), bar(64, 16, 24, 32, 8, 10, 210)]
    images = np.stack([*bars, bar(64, 16, 56, 48, 8, 40, 250), np.zeros((64, 64), np.uint8)])
    estimate = framing.estimate_framing(images[..., None])
    assert estimate[:5] == (0.5, 0.5, 28 / 64, 10.0, 210.0)
    assert estimate.thickness == pytest.approx(8 / 64, rel=0.1)


def test_ink_stands_out_by_half_of_the_greatest_contrast():
    """Faint and small differences aren't ink; its brightness is the 90th percentile."""
    pixels = np.full((64, 64), 20, np.uint8)
    pixels[10:20, 10:20] = 119  # less than half of the contrast of 200
    pixels[32:42, 30:40] = 121
    pixels[32:34, 30:40] = 220
    estimate = framing.estimate_framing(pixels[None, ..., None])
    ink = np.percentile([121.0] * 80 + [220.0] * 20, 90)
    assert estimate[:5] == (10 / 64, 37 / 64, 35 / 64, 20, ink)
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
    assert estimate[:5] == (0.5, 12 / 32, 0.5, 0.0, 200.0)
    assert estimate.thickness == pytest.approx(8 / 64, rel=0.1)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_recovers_digits_from_photographs(condition):
    """The error of a blank image is 0.1."""
    digits = data.load("mnist_5k").test_images[:100:10]
    estimate = framing.estimate_framing(digits)
    rng = np.random.default_rng(0)
    errors = []
    for digit in digits:
        photo = photograph(digit[..., 0], condition, rng)
        restored = framing.frame_image(photo, estimate, (32, 32, 1))[0]
        expected = framing.frame_image(png(digit[..., 0]), estimate, (32, 32, 1))[0]
        errors.append(np.mean((restored / 255.0 - expected / 255.0) ** 2))
    assert np.median(errors) < 0.03


@pytest.mark.long
def test_photographs_are_as_readable_as_the_originals():
    digits = data.load("mnist_5k")
    estimate = framing.estimate_framing(digits.test_images[:200])
    eval_classifier = classifier.train(digits, steps=400)
    rng = np.random.default_rng(0)
    framed, clean, labels = [], [], []
    for condition in CONDITIONS:
        for index in rng.permutation(1000)[:50]:
            digit = digits.test_images[index]
            photo = photograph(digit[..., 0], condition, rng)
            framed.append(framing.frame_image(photo, estimate, (32, 32, 1))[0])
            clean.append(framing.frame_image(png(digit[..., 0]), estimate, (32, 32, 1))[0])
            labels.append(digits.test_labels[index])
    framed, clean, labels = map(np.array, (framed, clean, labels))
    assert (framed > 127).mean(axis=(1, 2, 3)).max() < 0.5  # no inverted block
    photo_accuracy, clean_accuracy = (
        np.mean(eval_classifier.probabilities(scale_pixels(images)).argmax(axis=1) == labels)
        for images in (framed, clean)
    )
    assert clean_accuracy > 0.97
    assert photo_accuracy > clean_accuracy - 0.03


@pytest.mark.parametrize("condition", CONDITIONS[:-1])
def test_refuses_photographs_of_blank_paper(condition):
    rng = np.random.default_rng(0)
    for _ in range(5):
        photo = photograph(np.zeros((32, 32), np.uint8), condition, rng)
        with pytest.raises(ValueError, match="nothing is drawn on it"):
            framing.frame_image(photo, MNIST_LIKE, (32, 32, 1))


def test_straight_lines_of_a_strong_pen_are_a_character():
    """The digit one in Chinese characters, drawn across the whole pad."""
    photo = png(bar(256, 120, 20, 12, 216, 255, 0))
    framed = framing.frame_image(photo, MNIST_LIKE, (32, 32, 1))
    _, columns = np.nonzero(framed[0, ..., 0] > 127)
    assert np.ptp(columns) + 1 == 22


def test_thickens_thin_strokes():
    """To 0.08 of the side of an image of which the bar takes 0.6875."""
    photo = png(bar(400, 100, 200, 150, 3, 255, 0))
    bright = framing.frame_image(photo, MNIST_LIKE, (256, 256, 1))[0, ..., 0] > 127
    assert (bright[128].sum() / 256) == pytest.approx(0.08, rel=0.15)


def test_frames_the_largest_of_several_characters(caplog):
    """A cross, beside two bars that are also reported."""
    pixels = bar(400, 20, 20, 100, 12, 255, 0)
    pixels[20:120, 360:372] = 0
    pixels[200:350, 194:206] = 0
    pixels[269:281, 125:275] = 0
    with caplog.at_level("WARNING"):
        framed = framing.frame_image(png(pixels), MNIST_LIKE, (32, 32, 1))
    assert caplog.messages == ["the image holds 3 groups of strokes; the largest is used"]
    rows, columns = np.nonzero(framed[0, ..., 0] > 127)
    assert {np.ptp(rows) + 1, np.ptp(columns) + 1} <= {21, 22, 23}


def test_joins_strokes_of_one_character():
    """Two bars with a gap, as in a kana, are framed together without a warning."""
    pixels = bar(400, 100, 150, 200, 12, 255, 0)
    pixels[100:300, 185:197] = 0
    mask = framing.segment_character(
        np.asarray(Image.fromarray(pixels).resize((256, 256), Image.Resampling.BILINEAR))
    )
    assert mask.groups == 1
    _, columns = np.nonzero(mask.mask)
    assert np.ptp(columns) + 1 == pytest.approx(47 * 256 / 400, abs=3)


def sheet(digits, columns, ink=40, background=230):
    """Digits in cells of 80 pixels, each somewhere in its cell, in rows."""
    rng = np.random.default_rng(0)
    rows = -(-len(digits) // columns)
    page = np.full((80 * rows + 40, 80 * columns + 40), background, np.float64)
    page += np.linspace(-20, 0, page.shape[1]) + rng.normal(0, 4, page.shape)
    for index, digit in enumerate(digits):
        large = np.asarray(Image.fromarray(digit[..., 0]).resize((64, 64)), np.float64) / 255
        top, left = 20 + 80 * np.array(divmod(index, columns)) + rng.integers(0, 12, 2)
        page[top : top + 64, left : left + 64] += (ink - background) * large
    return page.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(("count", "columns"), [(2, 2), (5, 5), (12, 4), (28, 7)])
@pytest.mark.parametrize("inverted", [False, True])
def test_cuts_a_sheet_into_its_characters(count, columns, inverted):
    """In reading order: each resembles its digit, and hardly any other."""
    digits = data.load("mnist_5k").test_images[: 17 * count : 17]
    estimate = framing.estimate_framing(digits)
    page = sheet(digits, columns)
    page = 255 - page if inverted else page
    framed = framing.frame_sheet(png(page), estimate, (32, 32, 1))
    assert framed.shape == (count, 32, 32, 1)
    expected = np.concatenate(
        [framing.frame_image(png(digit[..., 0]), estimate, (32, 32, 1)) for digit in digits]
    )
    for index, character in enumerate(framed):
        same = np.corrcoef(character.ravel(), expected[index].ravel())[0, 1]
        assert same > 0.85


def test_small_spots_on_a_sheet_are_no_characters():
    digits = data.load("mnist_5k").test_images[: 17 * 4 : 17]
    page = sheet(digits, 4)
    page[8:12, 8:12] = 30
    estimate = framing.estimate_framing(digits)
    assert len(framing.frame_sheet(png(page), estimate, (32, 32, 1))) == 4


def test_flat_stroke_on_a_sheet_is_a_character():
    """Ruled lines are looked for on the sheet, and not on the cut-out of a stroke."""
    page = sheet(data.load("mnist_5k").test_images[: 17 * 3 : 17], 4)
    page[56:62, 280:330] = 50
    estimate = framing.estimate_framing(data.load("mnist_5k").test_images[:200])
    assert len(framing.frame_sheet(png(page), estimate, (32, 32, 1))) == 4


def test_refuses_noise():
    noise = np.random.default_rng(0).integers(0, 256, (800, 800))
    with pytest.raises(ValueError, match=r"\d+ groups of strokes are found on it, at most 300"):
        framing.frame_sheet(png(noise.astype(np.uint8)), MNIST_LIKE, (32, 32, 1))


def test_strokes_of_one_character_stay_together_on_a_sheet():
    """Two pairs of bars, whose gap is that of the model's characters."""
    pixels = bar(400, 150, 40, 100, 12, 255, 0)
    for left in (80, 280, 320):
        pixels[150:250, left : left + 12] = 0
    estimate = MNIST_LIKE._replace(gap=0.3)
    framed = framing.frame_sheet(png(pixels), estimate, (32, 32, 1))
    assert len(framed) == 2
    for character in framed:
        columns = np.flatnonzero(np.diff(np.r_[0, (character[16, :, 0] > 127), 0]))
        assert len(columns) == 4  # two bars
    assert len(framing.frame_sheet(png(pixels), MNIST_LIKE, (32, 32, 1))) == 4


def test_sheet_of_one_character_is_a_picture_of_it():
    digit = data.load("mnist_5k").test_images[7, ..., 0]
    arguments = png(digit), MNIST_LIKE, (32, 32, 1)
    np.testing.assert_array_equal(framing.frame_sheet(*arguments), framing.frame_image(*arguments))
    colour = png(np.stack([digit] * 3, axis=-1)), MNIST_LIKE, (16, 16, 3)
    np.testing.assert_array_equal(framing.frame_sheet(*colour), framing.frame_image(*colour))


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
    for load in (framing.frame_image, framing.frame_sheet):
        with pytest.raises(ValueError, match=message):
            load(content, MNIST_LIKE, (32, 32, 1))


def test_only_resizes_colour_images():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
    framed = framing.frame_image(png(pixels), MNIST_LIKE, (16, 16, 3))
    np.testing.assert_array_equal(framed[0], pixels)


def test_reports_images_without_ink():
    with pytest.raises(ValueError, match="none of 2 images"):
        framing.estimate_framing(np.zeros((2, 8, 8, 1), np.uint8))


def test_strokes_of_one_character_stay_together():
    """As in the Japanese letter i: two strokes with a gap, in the data and on the photograph."""
    image = np.zeros((32, 32), np.uint8)
    image[8:24, 8:10] = image[8:20, 20:22] = 250
    estimated = framing.estimate_framing(image[None, ..., None])
    assert estimated.gap == pytest.approx(10 / 32, abs=1.5 / 32)
    photo = png(np.asarray(Image.fromarray(255 - image).resize((320, 320))))
    framed = framing.frame_image(photo, estimated, (32, 32, 1))[0, ..., 0]
    assert ((framed > 100) == (image > 0)).mean() > 0.99
    alone = framing.frame_image(photo, estimated._replace(gap=0.0), (32, 32, 1))[0, ..., 0]
    assert framing._widest_gap(alone > 100) == 0

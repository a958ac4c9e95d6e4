"""Decoding of images in every format and mode, of unreadable files, and the train/test split."""

import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import encode_image, stroke_image
from PIL import Image
from tqdm import tqdm

from jvae_jax.data import images
from jvae_jax.data.images import (
    EncodedImage,
    UnreadableImageError,
    decode_image,
    decode_images,
    holdout_mask,
)


@pytest.mark.parametrize("format", ["png", "bmp", "gif", "tiff", "webp", "jpeg", "ppm"])
@pytest.mark.parametrize("mode", ["L", "RGB", "1", "P"])
def test_decodes_every_format_and_mode(format, mode):
    image = stroke_image().convert("RGB" if mode == "1" and format == "webp" else mode)
    if format in ("jpeg", "ppm", "webp") and mode == "P":
        image = image.convert("RGB")
    decoded = decode_image(encode_image(image, format), 16)
    assert decoded.shape == (16, 16, 1)
    assert np.abs(decoded[..., 0].astype(int) - np.asarray(stroke_image())).max() <= 40


def test_scales_16_bit_images():
    deep = Image.fromarray(np.asarray(stroke_image()).astype(np.uint16) * 257)
    np.testing.assert_array_equal(
        decode_image(encode_image(deep), 16)[..., 0], np.asarray(stroke_image())
    )


def test_transparent_pixels_become_white():
    alpha = 255 - np.asarray(stroke_image())
    image = Image.merge("LA", [Image.new("L", (16, 16), 0), Image.fromarray(alpha)])
    np.testing.assert_array_equal(
        decode_image(encode_image(image), 16)[..., 0], np.asarray(stroke_image())
    )


def test_applies_exif_orientation():
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise
    pixels = np.zeros((16, 16), np.uint8)
    pixels[:8] = 255
    decoded = decode_image(encode_image(Image.fromarray(pixels), "png", exif=exif), 16)
    np.testing.assert_array_equal(decoded[..., 0], np.rot90(pixels, -1))


def test_converts_colour_on_request():
    red = encode_image(Image.new("RGB", (16, 16), (255, 0, 0)))
    assert decode_image(red, 16).shape == (16, 16, 3)
    assert decode_image(red, 16, grey=True).shape == (16, 16, 1)


def test_preserves_aspect_ratio():
    tall = encode_image(stroke_image((32, 8), ink=10, background=200))
    decoded = decode_image(tall, 32)[..., 0]
    np.testing.assert_array_equal(decoded[:, :12], 200)
    np.testing.assert_array_equal(decoded[:, 12:20], np.asarray(stroke_image((32, 8), 10, 200)))
    np.testing.assert_array_equal(decoded[:, 20:], 200)


@pytest.mark.parametrize("size", [8, 32, 48])
def test_resizing_is_pillows_bilinear(size):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8))
    expected = np.asarray(noise.resize((size, size), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(decode_image(encode_image(noise), size)[..., 0], expected)


@pytest.mark.parametrize(("ink", "background"), [(0, 255), (255, 0), (90, 120), (200, 170)])
def test_normalizes_polarity(ink, background):
    """Also if the background is dark grey, noisy, and has an outlier of opposite contrast."""
    noise = np.random.default_rng(0).integers(-5, 6, (16, 16))
    pixels = np.asarray(stroke_image(ink=ink, background=background)).astype(int) + noise
    pixels[3, 3] = background + np.sign(background - ink) * abs(background - ink)
    normalized = images.normalize_polarity(pixels.clip(0, 255).astype(np.uint8)[..., None])[..., 0]
    is_ink = np.asarray(stroke_image(ink=1, background=0)).astype(bool)
    assert normalized[is_ink].mean() > normalized[~is_ink].mean() + 20


@pytest.mark.parametrize("value", [0, 100, 200, 255])
def test_blank_images_become_dark(value):
    blank = np.full((8, 8, 1), value, np.uint8)
    assert images.normalize_polarity(blank).max() == min(value, 255 - value)


GOOD = encode_image(stroke_image())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not an image that Pillow can read"),
        (b"some text", "not an image that Pillow can read"),
        (GOOD[: len(GOOD) // 2], "."),
        (GOOD[:-30], "."),
        (GOOD[:40] + b"????????" + GOOD[48:], "."),
        (encode_image(Image.new("1", (10_000, 10_000)), "png"), "100000000 pixels"),
        (encode_image(Image.new("1", (20_000, 10_000)), "png"), "200000000 pixels"),
        (encode_image(Image.new("1", (80_000_000, 1)), "png"), "80,000,000 x 1 pixels, at most"),
        (encode_image(Image.new("1", (1, 20_000)), "png"), "1 x 20,000 pixels, at most 16,384"),
    ],
    ids=["empty", "text", "half", "tail", "flipped", "bomb", "larger bomb", "wide", "high"],
)
@pytest.mark.fault(
    "data files",
    "images that are truncated, of another format, or decompression bombs",
    "skipped and reported",
)
def test_reports_undecodable_content(content, reason):
    with pytest.raises(UnreadableImageError, match=reason):
        decode_image(content, 16)


@pytest.mark.parametrize("size", [(1, 1), (10_000, 1), (1, 10_000)])
def test_pads_images_of_extreme_shapes(size):
    decoded = decode_image(encode_image(Image.new("L", size, 77)), 16)
    np.testing.assert_array_equal(decoded, np.full((16, 16, 1), 77))


@pytest.mark.parametrize("format", ["gif", "webp", "tiff"])
def test_decodes_the_first_frame_of_animations(format):
    frames = [stroke_image(), Image.new("L", (16, 16), 128)]
    content = encode_image(
        frames[0], format, save_all=True, append_images=frames[1:], lossless=True
    )
    decoded = decode_image(content, 16)[..., 0].astype(int)
    assert np.abs(decoded - np.asarray(frames[0])).max() <= 2


@pytest.mark.fault("data files", "FIFO or device in the place of an image", "skipped and reported")
def test_reports_files_that_are_not_regular(tmp_path):
    os.mkfifo(tmp_path / "fifo.png")
    for path in (tmp_path / "fifo.png", Path("/dev/zero")):
        with pytest.raises(UnreadableImageError, match="not a regular file"):
            decode_image(path, 16)


@pytest.mark.fault("data files", "link cycle in the place of an image", "skipped and reported")
def test_reports_unreadable_files(tmp_path):
    (tmp_path / "loop.png").symlink_to("loop.png")
    for name, reason in (("loop.png", "symbolic link"), ("none.png", "No such file")):
        with pytest.raises(UnreadableImageError, match=reason):
            decode_image(tmp_path / name, 16)


def make_images(classes, per_class):
    return [
        EncodedImage(name, f"{name}/{index}.png", GOOD)
        for name in classes
        for index in range(per_class)
    ]


def test_sorts_images_by_path():
    first = decode_images(make_images("ab", 3), "ab", 16, source="here")
    again = decode_images(make_images("ab", 3)[::-1], "ab", 16, source="here")
    assert first.notes == again.notes == ()
    assert first.paths == again.paths == sorted(first.paths)
    np.testing.assert_array_equal(first.labels, [0, 0, 0, 1, 1, 1])
    images = first.images(np.ones(6, bool))
    assert images.shape == (6, 16, 16, 1)
    assert images[0, 0, 0, 0] == 0  # the background, which was white


def test_counts_and_lists_unreadable_images():
    bad = [EncodedImage("a", f"a/ふ{index}.png", b"bad") for index in range(5)]
    decoded = decode_images([*make_images("ab", 2), *bad], "ab", 16, source="here")
    assert len(decoded.paths) == 4
    reason = "(not an image that Pillow can read)"
    assert decoded.notes == (
        f"skipped 5 of 9 images as unreadable: a/ふ0.png {reason}, a/ふ1.png {reason}, "
        f"a/ふ2.png {reason} and 2 more",
    )


def test_shows_a_progress_bar_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        decoded = decode_images(make_images("ab", 2), "ab", 16, source="here")
        assert decoded.notes == ()
        assert ("preparing" in stream.getvalue()) == stream.isatty()


@pytest.mark.parametrize(("options", "total"), [({}, 4), ({"count": 5}, 5), ({"count": 0}, None)])
def test_progress_bar_knows_the_number_of_images(monkeypatch, options, total):
    """Zero, of a tar archive, is unknown."""
    totals = []

    def bar(*, total, **options):
        totals.append(total)
        return tqdm(total=total, **options)

    monkeypatch.setattr(images, "tqdm", bar)
    decode_images(make_images("ab", 2), "ab", 16, source="here", **options)
    assert totals == [total]


@pytest.mark.fault("data files", "unprintable names of images", "escaped in the report")
def test_escapes_unprintable_names():
    bad = EncodedImage("a", "a/\udcff\x1b[31mふ.png", b"bad")
    (note,) = decode_images([*make_images("ab", 1), bad], "ab", 16, source="here").notes
    assert "a/\\udcff\\x1b[31mふ.png" in note
    assert note.isprintable()


def test_reports_classes_without_readable_images():
    bad = EncodedImage("b", "b/1.png", b"bad")
    message = r"here: class b has no readable image; .* b/1\.png \(not an im"
    with pytest.raises(ValueError, match=message):
        decode_images([*make_images("a", 2), bad], "ab", 16, source="here")


def test_one_coloured_image_makes_all_rgb():
    red = EncodedImage("a", "a/red.png", encode_image(Image.new("RGB", (16, 16), (255, 0, 0))))
    decoded = decode_images([*make_images("ab", 2), red], "ab", 16, source="here")
    images = decoded.images(np.ones(5, bool))
    assert images.shape == (5, 16, 16, 3)
    np.testing.assert_array_equal(images[0, ..., 1], np.asarray(stroke_image()))
    assert decoded.notes == (
        "1 of 5 images are coloured; all are loaded as RGB, without polarity normalization",
    )


def test_holds_out_the_same_fraction_of_every_class():
    labels = np.repeat([0, 1, 2, 3, -1], [100, 16, 2, 1, 50])
    paths = [f"{index}.png" for index in range(len(labels))]
    test = holdout_mask(paths, labels, 4)
    assert [int(test[labels == label].sum()) for label in (0, 1, 2, 3, -1)] == [10, 2, 1, 0, 0]
    # The split depends on the paths only, neither on the order nor on other classes.
    order = np.random.default_rng(0).permutation(len(labels))
    again = holdout_mask([paths[i] for i in order], labels[order], 4)
    np.testing.assert_array_equal(again, test[order])
    np.testing.assert_array_equal(holdout_mask(paths[:100], labels[:100], 1), test[:100])
    assert (holdout_mask([f"other{path}" for path in paths], labels, 4) != test).any()

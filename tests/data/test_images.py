"""Pictures of every kind that Pillow reads, and of kinds that it doesn't."""

import io
import sys

import numpy as np
import pytest
from helpers import character, encoded
from PIL import Image

from jvae_jax.data import images
from jvae_jax.data.images import Picture, UnreadableError, decode, decode_all, held_out


@pytest.mark.parametrize("kind", ["png", "bmp", "gif", "tiff", "webp", "jpeg", "ppm"])
@pytest.mark.parametrize("mode", ["L", "RGB", "1", "P"])
def test_every_format_reads_alike(kind, mode):
    image = character().convert("RGB" if mode == "1" and kind == "webp" else mode)
    if kind in ("jpeg", "ppm", "webp") and mode == "P":
        image = image.convert("RGB")
    found = decode(encoded(image, kind), 16)
    assert found.shape == (16, 16, 1)
    assert np.abs(found[..., 0].astype(int) - np.asarray(character())).max() <= 40


def test_sixteen_bits_are_scaled():
    deep = Image.fromarray(np.asarray(character()).astype(np.uint16) * 257)
    np.testing.assert_array_equal(decode(encoded(deep), 16)[..., 0], np.asarray(character()))


def test_what_is_transparent_is_white():
    alpha = 255 - np.asarray(character())
    image = Image.merge("LA", [Image.new("L", (16, 16), 0), Image.fromarray(alpha)])
    np.testing.assert_array_equal(decode(encoded(image), 16)[..., 0], np.asarray(character()))


def test_photographs_are_turned_as_they_say():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    pixels = np.zeros((16, 16), np.uint8)
    pixels[:8] = 255
    found = decode(encoded(Image.fromarray(pixels), "png", exif=exif), 16)
    np.testing.assert_array_equal(found[..., 0], np.rot90(pixels, -1))


def test_colour_is_kept_or_dropped():
    red = encoded(Image.new("RGB", (16, 16), (255, 0, 0)))
    assert decode(red, 16).shape == (16, 16, 3)
    assert decode(red, 16, grey=True).shape == (16, 16, 1)


def test_proportions_are_kept():
    tall = encoded(character((32, 8), ink=10, paper=200))
    found = decode(tall, 32)[..., 0]
    np.testing.assert_array_equal(found[:, :12], 200)
    np.testing.assert_array_equal(found[:, 12:20], np.asarray(character((32, 8), 10, 200)))
    np.testing.assert_array_equal(found[:, 20:], 200)


@pytest.mark.parametrize("size", [8, 32, 48])
def test_resizing_is_pillows_bilinear(size):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8))
    expected = np.asarray(noise.resize((size, size), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(decode(encoded(noise), size)[..., 0], expected)


@pytest.mark.parametrize(("ink", "paper"), [(0, 255), (255, 0), (90, 120), (200, 170)])
def test_ink_becomes_bright(ink, paper):
    """Also where paper is dark grey, noisy, and has a speck of the other colour."""
    noise = np.random.default_rng(0).integers(-5, 6, (16, 16))
    pixels = np.asarray(character(ink=ink, paper=paper)).astype(int) + noise
    pixels[3, 3] = paper + np.sign(paper - ink) * abs(paper - ink)
    found = images.ink_bright(pixels.clip(0, 255).astype(np.uint8)[..., None])[..., 0]
    is_ink = np.asarray(character(ink=1, paper=0)).astype(bool)
    assert found[is_ink].mean() > found[~is_ink].mean() + 20


@pytest.mark.parametrize("value", [0, 100, 200, 255])
def test_an_empty_picture_is_dark(value):
    blank = np.full((8, 8, 1), value, np.uint8)
    assert images.ink_bright(blank).max() == min(value, 255 - value)


GOOD = encoded(character())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no picture that Pillow reads"),
        (b"some text", "no picture that Pillow reads"),
        (GOOD[: len(GOOD) // 2], "."),
        (GOOD[:-30], "."),
        (GOOD[:40] + b"????????" + GOOD[48:], "."),
        (encoded(Image.new("1", (10_000, 10_000)), "png"), "100000000 pixels"),
        (encoded(Image.new("1", (20_000, 10_000)), "png"), "200000000 pixels"),
    ],
    ids=["empty", "text", "half", "tail", "flipped", "bomb", "bigger bomb"],
)
def test_unreadable_pictures_are_told(content, reason):
    with pytest.raises(UnreadableError, match=reason):
        decode(content, 16)


def test_unreadable_files_are_told(tmp_path):
    (tmp_path / "loop.png").symlink_to("loop.png")
    for name, reason in (("loop.png", "symbolic link"), ("none.png", "No such file")):
        with pytest.raises(UnreadableError, match=reason):
            decode(tmp_path / name, 16)


def many(classes, each):
    return [Picture(name, f"{name}/{index}.png", GOOD) for name in classes for index in range(each)]


def test_order_is_that_of_paths_wherever_they_come_from():
    first = decode_all(many("ab", 3), "ab", 16, where="here", say=pytest.fail)
    again = decode_all(many("ab", 3)[::-1], "ab", 16, where="here", say=pytest.fail)
    assert first.paths == again.paths == sorted(first.paths)
    np.testing.assert_array_equal(first.labels, [0, 0, 0, 1, 1, 1])
    assert first.images.shape == (6, 16, 16, 1)
    assert first.images[0, 0, 0, 0] == 0  # the paper, which was white


def test_what_cannot_be_read_is_counted_and_named():
    said = []
    bad = [Picture("a", f"a/ふ{index}.png", b"bad") for index in range(5)]
    decoded = decode_all([*many("ab", 2), *bad], "ab", 16, where="here", say=said.append)
    assert len(decoded.paths) == 4
    assert said == [
        "left out as unreadable, 5 of 9 pictures: a/ふ0.png (no picture that Pillow reads), "
        "a/ふ1.png (no picture that Pillow reads), a/ふ2.png (no picture that Pillow reads) "
        "and 2 more"
    ]


def test_a_terminal_shows_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        decode_all(many("ab", 2), "ab", 16, where="here", say=pytest.fail)
        assert ("preparing" in stream.getvalue()) == stream.isatty()


def test_names_that_are_no_text_can_be_said():
    said = []
    bad = Picture("a", "a/\udcff.png", b"bad")
    decode_all([*many("ab", 1), bad], "ab", 16, where="here", say=said.append)
    assert "a/\\udcff.png" in said[0]
    said[0].encode()


def test_a_class_without_readable_pictures_is_refused():
    bad = Picture("b", "b/1.png", b"bad")
    with pytest.raises(ValueError, match=r"here: the class b has no picture .* b/1\.png \(no pict"):
        decode_all([*many("a", 2), bad], "ab", 16, where="here", say=pytest.fail)


def test_one_coloured_picture_makes_all_of_them_coloured():
    red = Picture("a", "a/red.png", encoded(Image.new("RGB", (16, 16), (255, 0, 0))))
    said = []
    decoded = decode_all([*many("ab", 2), red], "ab", 16, where="here", say=said.append)
    assert decoded.images.shape == (5, 16, 16, 3)
    np.testing.assert_array_equal(decoded.images[0, ..., 1], np.asarray(character()))
    assert said == ["1 of 5 pictures are coloured, so all are taken as RGB, uninverted"]


def test_the_same_share_of_every_class_is_held_out():
    labels = np.repeat([0, 1, 2, 3, -1], [100, 16, 2, 1, 50])
    paths = [f"{index}.png" for index in range(len(labels))]
    test = held_out(paths, labels, 4)
    assert [int(test[labels == label].sum()) for label in (0, 1, 2, 3, -1)] == [10, 2, 1, 0, 0]
    # Fixed by names: neither order nor what other classes have makes a difference.
    order = np.random.default_rng(0).permutation(len(labels))
    again = held_out([paths[i] for i in order], labels[order], 4)
    np.testing.assert_array_equal(again, test[order])
    np.testing.assert_array_equal(held_out(paths[:100], labels[:100], 1), test[:100])
    assert (held_out([f"other{path}" for path in paths], labels, 4) != test).any()

"""Fonts: tables, outlines and alternation, read by fontTools, Pillow and the sanitizer."""

import io
import sys
from dataclasses import replace

import numpy as np
import pytest
from fontTools.pens.areaPen import AreaPen
from fontTools.ttLib import TTFont
from PIL import ImageFont, features

from jvae_jax.handwriting.font import build_font, render_glyphs
from jvae_jax.handwriting.hand import sample_hand
from jvae_jax.handwriting.text import GAP, SPACE, glyph_outlines

NAMES = "0123456789"


@pytest.fixture(scope="module")
def hand(digits):
    import jax

    return sample_hand(digits, jax.random.key(0))


@pytest.fixture(scope="module")
def content(digits, hand):
    import jax

    return build_font(digits, hand, key=jax.random.key(0), family="My Hand", license="CC0")


@pytest.fixture
def font(content):
    return TTFont(io.BytesIO(content))


def test_passes_the_sanitizer(content, tmp_path):
    ots = pytest.importorskip("ots", reason="opentype-sanitizer has no wheel for this system")
    path = tmp_path / "font.ttf"
    path.write_bytes(content)
    result = ots.sanitize(path, tmp_path / "out.ttf", capture_output=True)
    assert result.returncode == 0
    assert b"WARNING" not in result.stderr


def test_survives_a_round_trip_through_xml(content, tmp_path):
    font = TTFont(io.BytesIO(content), recalcTimestamp=False)
    font.saveXML(tmp_path / "font.ttx")
    again = TTFont(recalcTimestamp=False)
    again.importXML(tmp_path / "font.ttx")
    saved = io.BytesIO()
    again.save(saved)
    again, font = (TTFont(io.BytesIO(each)) for each in (saved.getvalue(), content))
    for table in set(font.reader.keys()) - {"head"}:  # which holds a checksum of the file
        assert again.reader[table] == font.reader[table], table


def test_has_a_glyph_for_every_character_and_spaces(font):
    assert set(map(chr, font.getBestCmap())) == {*NAMES, " ", "\u00a0"}
    assert font.getGlyphOrder()[0] == ".notdef"
    assert font["glyf"][".notdef"].numberOfContours == 2
    assert font["hmtx"]["space"] == (round(1000 * SPACE), 0)


def test_glyphs_are_the_outlines_in_the_hand(font, digits, hand):
    outlines = glyph_outlines(digits, hand.z[None].repeat(10, axis=0), range(10), NAMES)
    glyphs = font.getGlyphSet()
    for character, outline in zip(NAMES, outlines, strict=True):
        name = font.getBestCmap()[ord(character)]
        left, top, right, bottom = outline.box
        glyph = font["glyf"][name]
        # The font's bounds are those of its control points.
        assert glyph.yMin == pytest.approx(-1000 * bottom, abs=10)
        assert glyph.yMax == pytest.approx(-1000 * top, abs=10)
        advance, bearing = font["hmtx"][name]
        assert advance == pytest.approx(1000 * (right - left + GAP), abs=1)
        assert bearing == pytest.approx(500 * GAP, abs=3)
        # The area of the cubic curves, by Green's theorem.
        pen = AreaPen(glyphs)
        glyphs[name].draw(pen)
        area = sum(map(area_of, outline.contours))
        assert pen.value == pytest.approx(-1e6 * area, rel=0.01)  # clockwise


def area_of(contour):
    t = np.linspace(0, 1, 50, endpoint=False)[:, None]
    weights = np.concatenate([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], axis=1)
    x, y = np.einsum("sp,cpd->csd", weights, contour).reshape(-1, 2).T
    return np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2


def test_names_metrics_and_embedding(font):
    names = {record.nameID: str(record) for record in font["name"].names}
    assert names[1] == names[4] == "My Hand"
    assert names[6] == "MyHand-Regular"
    assert names[13] == "CC0"
    os2, hhea = font["OS/2"], font["hhea"]
    assert os2.fsType == 0
    assert hhea.ascent == os2.sTypoAscender == os2.usWinAscent >= font["head"].yMax
    assert -hhea.descent == -os2.sTypoDescender == os2.usWinDescent >= -font["head"].yMin
    assert font["head"].unitsPerEm == 1000


def test_same_hand_makes_the_same_file(digits, hand, content, key):
    assert build_font(digits, hand, key=key, family="My Hand", license="CC0") == content


def test_pillow_draws_every_glyph_as_the_model_does(content, digits, hand):
    drawn = render_glyphs(content, NAMES, 32, 32)
    images = np.asarray(digits.decode(hand.z[None].repeat(10, axis=0), range(10)))[..., 0]
    for glyph, image in zip(drawn, images, strict=True):
        # The model doesn't centre its characters exactly.
        shifts = [(row, column) for row in range(-3, 4) for column in range(-3, 4)]
        overlap = []
        for shift in shifts:
            moved = np.roll(glyph, shift, axis=(0, 1)) > 0.5
            overlap.append((moved & (image > 0.5)).sum() / (moved | (image > 0.5)).sum())
        assert max(overlap) > 0.65


@pytest.mark.skipif(not features.check("raqm"), reason="Pillow without Raqm, which applies calt")
def test_equal_letters_take_alternates_in_turn(content):
    drawing = ImageFont.truetype(io.BytesIO(content), 200, layout_engine=ImageFont.Layout.RAQM)

    def letters(text):
        image = np.asarray(drawing.getmask(text), np.uint8).reshape(
            drawing.getmask(text).size[::-1]
        )
        columns = np.flatnonzero(np.diff(np.r_[0, (image > 0).any(axis=0), 0]))
        return [image[:, start:end] for start, end in columns.reshape(-1, 2)]

    def same(a, b):
        return a.shape == b.shape and (a == b).all()

    first, second, third, fourth = letters("3333")
    assert not same(first, second)
    assert not same(second, third)
    assert not same(first, third)
    assert fourth.shape[1] == pytest.approx(first.shape[1], abs=2)
    one, two = letters("3 3")  # across a space too
    assert not same(one, two)


def test_one_alternate_needs_no_feature(digits, hand, key):
    font = TTFont(io.BytesIO(build_font(digits, hand, key=key, alternates=1)))
    assert "GSUB" not in font
    assert len(font.getGlyphOrder()) == 12


def test_woff2_has_the_same_glyphs(digits, hand, key, font):
    content = build_font(digits, hand, key=key, family="My Hand", license="CC0", format="woff2")
    assert content[:4] == b"wOF2"
    assert TTFont(io.BytesIO(content)).getBestCmap() == font.getBestCmap()


def test_woff2_without_brotli_names_the_extra(digits, hand, key, monkeypatch):
    monkeypatch.setitem(sys.modules, "brotli", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'jvae_jax\[font\]'"):
        build_font(digits, hand, key=key, format="woff2")


def test_maps_longer_names_to_characters(digits, hand, key):
    model = replace(digits, class_names=("zero", "one", *NAMES[2:]))
    font = TTFont(io.BytesIO(build_font(model, hand, key=key, characters={"zero": "O"})))
    assert set(map(chr, font.getBestCmap())) == {*NAMES[2:], "O", " ", "\u00a0"}


def test_mapped_characters_have_their_baseline(digits, hand, key):
    """A class that is mapped to g or ゆ is placed as one of that name."""
    for character in ("g", "ゆ", "😀"):
        named = replace(digits, class_names=(character, *NAMES[1:]))
        mapped = replace(digits, class_names=("other", *NAMES[1:]))
        fonts = [
            TTFont(io.BytesIO(build_font(model, hand, key=key, characters=characters)))
            for model, characters in ((named, {}), (mapped, {"other": character}))
        ]
        glyphs = [each["glyf"][each.getBestCmap()[ord(character)]] for each in fonts]
        assert (glyphs[0].yMin, glyphs[0].yMax) == (glyphs[1].yMin, glyphs[1].yMax)
        assert (glyphs[0].yMin < -100) == (character == "g")


def test_full_width_characters_bring_their_space(digits, hand, key):
    model = replace(digits, class_names=("あ", *NAMES[1:]))
    font = TTFont(io.BytesIO(build_font(model, hand, key=key, alternates=1)))
    assert font["hmtx"]["ideographicspace"][0] == 2 * font["hmtx"]["space"][0]
    assert 0x3000 in font.getBestCmap()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alternates": 0}, "alternates must be 1 or more, got 0"),
        ({"family": " "}, "the font needs a name"),
        ({"characters": {"x": "y"}}, "there is no class x; there are 0, 1"),
        ({"characters": {"3": "ab"}}, "class 3 must be mapped to one character, got 'ab'"),
        ({"characters": {"3": " "}}, "mapped to a visible character, got ' '"),
        ({"family": "a" * 101}, "family must have at most 100 letters, got 101"),
        ({"license": "a" * 10_001}, "license must have at most 10,000 letters, got 10,001"),
        ({"characters": {"3": "4"}}, "4 is the character of both classes 3 and 4"),
    ],
)
def test_rejects_options(options, message, digits, hand, key):
    with pytest.raises(ValueError, match=message):
        build_font(digits, hand, key=key, **options)


def test_rejects_a_model_without_characters(digits, hand, key):
    model = replace(digits, class_names=tuple(f"class {name}" for name in NAMES))
    with pytest.raises(ValueError, match="has no class that is a character; map classes"):
        build_font(model, hand, key=key)
    without_classes = replace(digits, network=digits.network.clone(classes=0))
    with pytest.raises(ValueError, match="has no classes, so it makes no font"):
        build_font(without_classes, hand, key=key)

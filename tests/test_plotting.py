import io

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image

from jvae_jax import plotting


def drawn(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("L"), float)


def test_characters_lie_in_their_cells_dark_on_white():
    images = np.zeros((2, 3, 8, 8, 1))
    images[1, 2] = 1.0
    picture = drawn(plotting.sheet(images))
    height, width = picture.shape
    dark = picture < 128
    inside = dark[height // 2 + 2 :, 2 * width // 3 + 2 :]
    assert inside.mean() > 0.9
    assert dark.sum() < 1.1 * inside.size


def test_names_take_room_of_their_own():
    images = np.zeros((2, 3, 8, 8, 1))
    plain, named = (drawn(plotting.sheet(images, names)) for names in (None, ["a", "b"]))
    assert named.shape[0] == plain.shape[0]
    assert named.shape[1] > plain.shape[1]
    assert (named < 128).any()


def test_colour_is_kept():
    images = np.zeros((1, 1, 8, 8, 3))
    images[..., 0] = 1.0
    buffer = io.BytesIO()
    plotting.sheet(images).savefig(buffer, format="png")
    assert Image.open(buffer).convert("RGB").getpixel((5, 5)) == (255, 0, 0)


def test_bad_shapes_are_told():
    with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
        plotting.sheet(np.zeros((1, 1, 8, 8, 2)))
    with pytest.raises(ValueError, match="2 rows need as many names, got 1"):
        plotting.sheet(np.zeros((2, 1, 8, 8, 1)), ["a"])


def test_many_rows_stand_side_by_side():
    images = np.zeros((73, 3, 8, 8, 1))
    images[[0, 25, 50, 72]] = 1.0  # the first row of each of three blocks, and the last row
    figure = plotting.sheet(images, [f"class {index}" for index in range(73)])
    blocks = figure.axes
    assert [len(axes.get_yticklabels()) for axes in blocks] == [25, 25, 23]
    assert blocks[1].get_yticklabels()[0].get_text() == "class 25"
    dark = drawn(figure) < 128
    height = len(dark)
    assert dark[: height // 30].mean() > 0.5
    assert dark[round(22.4 / 25 * height) : round(22.6 / 25 * height), -50:].all()
    assert not dark[round(23.1 / 25 * height) :, -50:].any()


def test_long_names_are_not_cut_off():
    images = np.zeros((2, 3, 8, 8, 1))
    pictures = [drawn(plotting.sheet(images, ["a", name])) for name in ("pullover", "pullover" * 3)]
    for picture in pictures:
        assert (picture[:, :2] == 255).all()
        assert (picture[:, :40] < 128).any()
    assert pictures[1].shape[1] > pictures[0].shape[1] + 100


def test_panels_stand_in_rows_and_columns():
    """The first of four is dark, and names make room in its column alone."""
    dark, light = np.ones((2, 3, 8, 8, 1)), np.zeros((2, 3, 8, 8, 1))
    first = plotting.Panel(images=dark, title="ours", row_names=["a", "b"])
    other = plotting.Panel(images=light)
    figure = plotting.panels([[first, other], [plotting.Panel(images=light[:1]), other]])
    assert [axes.get_title() for axes in figure.axes] == ["ours", "", "", ""]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "b"]
    picture = drawn(figure)
    height, width = picture.shape
    assert (picture[height // 4, width // 4] < 128).all()
    assert (picture[:, 3 * width // 5 :] == 255).all()
    assert (picture[height // 2 :] == 255).all()


def test_curves_show_every_series():
    charts = {"MSE": {"one": ([1.0, 10.0], [0.5, 0.25]), "two": ([1.0], [0.75])}, "read": {}}
    figure = plotting.curves(charts, "labels", logarithmic=True)
    first, second = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["MSE", "read"]
    assert {axes.get_xscale() for axes in figure.axes} == {"log"}
    (one, two), none = first.lines, second.lines
    np.testing.assert_array_equal(one.get_xydata(), [[1, 0.5], [10, 0.25]])
    np.testing.assert_array_equal(two.get_xydata(), [[1, 0.75]])
    assert not list(none)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["one", "two"]


def test_confusion_is_shares_of_rows():
    counts = np.array([[8, 0, 0], [5, 15, 0], [0, 0, 1]])
    figure = plotting.confusion(counts, ["a", "b", "trouser"])
    (axes,) = figure.axes
    shares = axes.images[0].get_array()
    np.testing.assert_allclose(shares, [[1, 0, 0], [0.25, 0.75, 0], [0, 0, 1]])
    written = {(text.get_position(), text.get_text()) for text in axes.texts}
    assert written == {((0, 0), "100"), ((0, 1), "25"), ((1, 1), "75"), ((2, 2), "100")}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "trouser"]
    drawn(figure)


@pytest.fixture
def only_font(tmp_path, monkeypatch):
    """A system with one font, which has あ, a square, and い, a bar."""
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", "a", "i"])
    builder.setupCharacterMap({ord("あ"): "a", ord("い"): "i"})
    glyphs = {}
    for name, width in ((".notdef", 0), ("a", 800), ("i", 100)):
        pen = TTGlyphPen(None)
        if width:
            pen.moveTo((0, 0))
            for point in ((0, 800), (width, 800), (width, 0)):
                pen.lineTo(point)
            pen.closePath()
        glyphs[name] = pen.glyph()
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Only", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "only.ttf")
    (tmp_path / "broken.ttf").write_text("no font")
    fonts = [str(tmp_path / "broken.ttf"), str(tmp_path / "only.ttf")]
    monkeypatch.setattr(plotting.font_manager, "findSystemFonts", lambda: fonts)
    plotting._font_with.cache_clear()
    yield
    plotting._font_with.cache_clear()


@pytest.mark.usefixtures("only_font")
def test_japanese_names_are_drawn_where_a_font_has_them():
    assert plotting.font_hint(["あ", "い"]) is None
    figure = plotting.sheet(np.zeros((2, 1, 8, 8, 1)), ["あ", "い"])
    labels = figure.axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == ["あ", "い"]
    margin = drawn(figure)[:, :40] < 128
    square, bar = margin[: len(margin) // 2].sum(), margin[len(margin) // 2 :].sum()
    assert square == pytest.approx(8 * bar, rel=0.3)


@pytest.mark.usefixtures("only_font")
def test_names_that_no_font_has_become_code_points():
    names = ["い", "り", "3"]
    hint = plotting.font_hint(names)
    assert "no installed font has り" in hint
    assert "apt install fonts-noto-cjk" in hint
    labels = plotting.sheet(np.zeros((3, 1, 8, 8, 1)), names).axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == ["U+3044", "U+308A", "3"]

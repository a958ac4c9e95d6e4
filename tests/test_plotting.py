import io

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image

from jvae_jax import plotting


def render(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("L"), float)


def test_image_grid_inverts_greyscale_images():
    images = np.zeros((2, 3, 8, 8, 1))
    images[1, 2] = 1.0
    rendered = render(plotting.image_grid(images))
    height, width = rendered.shape
    dark = rendered < 128
    dark_cell = dark[height // 2 + 2 :, 2 * width // 3 + 2 :]
    assert dark_cell.mean() > 0.9
    assert dark.sum() < 1.1 * dark_cell.size


def test_row_names_widen_figure():
    images = np.zeros((2, 3, 8, 8, 1))
    plain, named = (render(plotting.image_grid(images, names)) for names in (None, ["a", "b"]))
    assert named.shape[0] == plain.shape[0]
    assert named.shape[1] > plain.shape[1]
    assert (named < 128).any()


def test_image_grid_keeps_colours():
    images = np.zeros((1, 1, 8, 8, 3))
    images[..., 0] = 1.0
    buffer = io.BytesIO()
    plotting.image_grid(images).savefig(buffer, format="png")
    assert Image.open(buffer).convert("RGB").getpixel((5, 5)) == (255, 0, 0)


def test_panel_rejects_invalid_shapes():
    with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
        plotting.image_grid(np.zeros((1, 1, 8, 8, 2)))
    with pytest.raises(ValueError, match="expected 2 row names, one per row, got 1"):
        plotting.image_grid(np.zeros((2, 1, 8, 8, 1)), ["a"])


def test_image_grid_splits_many_rows_into_blocks():
    images = np.zeros((73, 3, 8, 8, 1))
    images[[0, 25, 50, 72]] = 1.0  # the first row of each block, and the last row
    figure = plotting.image_grid(images, [f"class {index}" for index in range(73)])
    blocks = figure.axes
    assert [len(axes.get_yticklabels()) for axes in blocks] == [25, 25, 23]
    assert blocks[1].get_yticklabels()[0].get_text() == "class 25"
    dark = render(figure) < 128
    height = len(dark)
    assert dark[: height // 30].mean() > 0.5
    assert dark[round(22.4 / 25 * height) : round(22.6 / 25 * height), -50:].all()
    assert not dark[round(23.1 / 25 * height) :, -50:].any()


def test_long_row_names_are_not_clipped():
    images = np.zeros((2, 3, 8, 8, 1))
    rendered_figures = [
        render(plotting.image_grid(images, ["a", name])) for name in ("pullover", "pullover" * 3)
    ]
    for rendered in rendered_figures:
        assert (rendered[:, :2] == 255).all()
        assert (rendered[:, :40] < 128).any()
    assert rendered_figures[1].shape[1] > rendered_figures[0].shape[1] + 100


def test_panel_grid_positions_panels():
    """The first of four panels is dark; its names widen the first column only."""
    dark, light = np.ones((2, 3, 8, 8, 1)), np.zeros((2, 3, 8, 8, 1))
    first = plotting.Panel(images=dark, title="ours", row_names=["a", "b"])
    other = plotting.Panel(images=light)
    figure = plotting.panel_grid([[first, other], [plotting.Panel(images=light[:1]), other]])
    assert [axes.get_title() for axes in figure.axes] == ["ours", "", "", ""]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "b"]
    rendered = render(figure)
    height, width = rendered.shape
    assert (rendered[height // 4, width // 4] < 128).all()
    assert (rendered[:, 3 * width // 5 :] == 255).all()
    assert (rendered[height // 2 :] == 255).all()


def test_line_charts_plot_every_series():
    charts = {"MSE": {"one": ([1.0, 10.0], [0.5, 0.25]), "two": ([1.0], [0.75])}, "accuracy": {}}
    figure = plotting.line_charts(charts, "labels", logarithmic=True)
    first, second = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["MSE", "accuracy"]
    assert {axes.get_xscale() for axes in figure.axes} == {"log"}
    (one, two), empty = first.lines, second.lines
    np.testing.assert_array_equal(one.get_xydata(), [[1, 0.5], [10, 0.25]])
    np.testing.assert_array_equal(two.get_xydata(), [[1, 0.75]])
    assert not list(empty)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["one", "two"]


def test_line_charts_draw_each_series_in_its_own_style():
    series = {str(number): ([1.0, 2.0], [0.5, 0.25]) for number in range(10)}
    with pytest.raises(ValueError, match="at most 9 series, got 10"):
        plotting.line_charts({"MSE": series}, "labels")
    del series["9"]
    (axes,) = plotting.line_charts({"MSE": series}, "labels").axes
    assert [line.get_label() for line in axes.lines] == list(series)
    assert len({(line.get_marker(), line.get_linestyle()) for line in axes.lines}) == 9


@pytest.mark.parametrize(("length", "columns"), [(2, 6), (20, 3), (80, 1)])
def test_a_legend_fits_into_the_figure(length, columns):
    series = {letter * length: ([1.0, 2.0], [0.5, 0.25]) for letter in "abcdef"}
    figure = plotting.line_charts({"MSE": series, "accuracy": series}, "labels")
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    left = {round(text.get_window_extent().x0) for text in legend.get_texts()}
    assert len(left) == columns
    assert (box.x0 >= 0 and box.x1 <= figure.bbox.width) or columns == 1
    assert box.y1 < figure.axes[0].get_tightbbox().y0


def test_line_charts_average_values_of_one_x():
    charts = {"error": {"one": ([10.0, 10.0, 10.0, 100.0], [0.5, 0.1, 0.3, 0.2])}}
    (axes,) = plotting.line_charts(charts, "labels").axes
    (line,) = axes.lines
    np.testing.assert_allclose(line.get_xydata(), [[10, 0.3], [100, 0.2]])
    (bars,) = axes.collections
    np.testing.assert_allclose(bars.get_segments(), [[[10, 0.1], [10, 0.5]]])


def test_heat_maps_share_rows_and_scale():
    maps = {
        "one": (np.array([[0.0, 1.0], [0.5, 0.25]]), ["0.9", "c"]),
        "two": (np.array([[2.0], [0.0]]), ["0.1"]),
    }
    figure = plotting.heat_maps(maps, ["slant", "width"], x_label="KL", label="nats", columns=2)
    first, second, scale = figure.axes
    assert [axes.get_title() for axes in (first, second)] == ["one", "two"]
    assert {axes.images[0].get_clim() for axes in (first, second)} == {(0, 2)}
    np.testing.assert_array_equal(first.images[0].get_array(), maps["one"][0])
    assert [label.get_text() for label in first.get_xticklabels()] == ["0.9", "c"]
    assert [label.get_text() for label in first.get_yticklabels()] == ["slant", "width"]
    assert scale.get_ylabel() == "nats"
    render(figure)


def test_confusion_matrix_is_normalised_by_row():
    counts = np.array([[8, 0, 0], [5, 15, 0], [0, 0, 1]])
    figure = plotting.confusion_matrix(counts, ["a", "b", "trouser"])
    (axes,) = figure.axes
    fractions = axes.images[0].get_array()
    np.testing.assert_allclose(fractions, [[1, 0, 0], [0.25, 0.75, 0], [0, 0, 1]])
    annotations = {(text.get_position(), text.get_text()) for text in axes.texts}
    assert annotations == {((0, 0), "100"), ((0, 1), "25"), ((1, 1), "75"), ((2, 2), "100")}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "trouser"]
    render(figure)


@pytest.fixture
def only_font(tmp_path, monkeypatch):
    """Installs only one font, with a square for あ and a bar for い."""
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
def test_japanese_names_use_installed_font():
    assert plotting.font_hint(["あ", "い"]) is None
    figure = plotting.image_grid(np.zeros((2, 1, 8, 8, 1)), ["あ", "い"])
    labels = figure.axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == ["あ", "い"]
    margin = render(figure)[:, :40] < 128
    square, bar = margin[: len(margin) // 2].sum(), margin[len(margin) // 2 :].sum()
    assert square == pytest.approx(8 * bar, rel=0.3)


@pytest.mark.usefixtures("only_font")
def test_unsupported_names_become_code_points():
    names = ["い", "り", "3"]
    hint = plotting.font_hint(names)
    assert "missing character: り" in hint
    assert "apt install fonts-noto-cjk" in hint
    labels = plotting.image_grid(np.zeros((3, 1, 8, 8, 1)), names).axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == ["U+3044", "U+308A", "3"]


@pytest.mark.usefixtures("only_font")
def test_hints_at_font_if_several_fonts_would_be_needed():
    hint = plotting.font_hint(["あ", "3"])
    assert hint.startswith("no installed font supports the names, so figures show code points")

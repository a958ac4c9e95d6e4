"""Texts: order, spacing, baselines and alignment of the outlines."""

import unicodedata
from dataclasses import replace

import numpy as np
import pytest

from jvae_jax.handwriting.hand import sample_hand
from jvae_jax.handwriting.text import BASELINE, GAP, SPACE, glyph_outlines, write


@pytest.fixture
def hand(digits, key):
    return sample_hand(digits, key)


@pytest.fixture
def written(digits, hand, key):
    """Writes a text without variation, and returns the boxes of the characters."""

    def write_boxes(text, model=digits, **options):
        options = {"variation": 0.0, **options}
        writing = write(model, text, hand, key=key, **options)
        return np.array([outline.box for outline in writing.outlines])

    return write_boxes


def named(model, *names):
    """The model with other names of its first classes."""
    return replace(model, class_names=(*names, *model.class_names[len(names) :]))


def test_characters_follow_each_other_at_the_same_distance(written):
    boxes = written("20419830")
    np.testing.assert_allclose(boxes[1:, 0] - boxes[:-1, 2], GAP)
    assert len(boxes) == 8


def test_space_widens_the_distance(written):
    tight, wide, wider = (written(text) for text in ("20", "2 0", "2  0"))
    assert wide[1, 0] - tight[1, 0] == pytest.approx(SPACE)
    assert wider[1, 0] - tight[1, 0] == pytest.approx(2 * SPACE)


def test_digits_stand_on_lines_at_equal_distances(written):
    boxes = written("20\n41\n\n98")
    first, second, third = boxes[:2, 3], boxes[2:4, 3], boxes[4:, 3]
    for line in (first, second, third):
        np.testing.assert_allclose(line, line[0])
    assert third[0] - second[0] == pytest.approx(2 * (second[0] - first[0]))


def test_alignment_moves_the_shorter_line(written):
    left, center, right = (written("1983\n7", align=each) for each in ("left", "center", "right"))
    assert left[4, 0] == pytest.approx(left[0, 0])
    assert right[4, 2] == pytest.approx(right[3, 2])
    assert center[4, [0, 2]].mean() == pytest.approx(center[[0, 3], [0, 2]].mean())


def test_spaces_at_the_end_of_a_line_have_no_effect(written):
    np.testing.assert_allclose(
        written("1983 \n7", align="right"), written("1983\n7  ", align="right")
    )


def test_vertical_lines_run_downwards_and_follow_from_right_to_left(written):
    boxes = written("198\n30", vertical=True)
    np.testing.assert_allclose(boxes[1:3, 1] - boxes[:2, 3], GAP)
    centres = boxes[:, [0, 2]].mean(axis=1)
    np.testing.assert_allclose(centres[:3], centres[0])
    assert centres[3] < centres[0]
    assert boxes[3, 1] == pytest.approx(boxes[0, 1])


def test_text_is_inside_the_figure(digits, hand, key):
    for vertical in (False, True):
        writing = write(digits, "20\n1983 4", hand, key=key, vertical=vertical)
        boxes = np.array([outline.box for outline in writing.outlines])
        assert (boxes[:, :2] > 0.1).all()
        assert (boxes[:, 2] < writing.width - 0.1).all()
        assert (boxes[:, 3] < writing.height - 0.1).all()


def test_equal_characters_differ_by_the_variation(digits, hand, key):
    def shapes(variation):
        writing = write(digits, "888", hand, key=key, variation=variation)
        return [
            np.concatenate([contour[:, 0] for contour in outline.contours]) - [outline.box[0], 0]
            for outline in writing.outlines
        ]

    def differ(a, b):
        return a.shape != b.shape or np.abs(a - b)[:, 1].max() > 1e-3

    first, second, third = shapes(0.0)
    assert not differ(first, second)
    assert not differ(first, third)
    first, second, third = shapes(1.0)
    assert differ(first, second)
    assert differ(second, third)


def test_same_key_writes_the_same(digits, hand, key):
    first, second = (write(digits, "42", hand, key=key) for _ in range(2))
    np.testing.assert_array_equal(first.outlines[1].contours[0], second.outlines[1].contours[0])


def test_lower_case_letters_have_their_heights(digits, hand, written):
    """An x is 0.68 as high as a capital; a g begins there and ends 0.3 below the line."""
    del hand
    capital = written("3", digits)[0]
    height = capital[3] - capital[1]
    for name, top, bottom in (("x", 0.68, 0.0), ("g", 0.68, -0.3), ("j", 1.0, -0.3), ("h", 1, 0)):
        model = named(digits, "0", "1", "2", name)
        box = written(f"{name}8", model)
        baseline = box[1, 3]
        assert (baseline - box[0, 1]) / height == pytest.approx(top)
        assert (baseline - box[0, 3]) / height == pytest.approx(bottom, abs=1e-6)


def test_full_width_characters_keep_their_place_in_the_image(digits, hand):
    model = named(digits, "ゆ")
    styles = hand.z[None]
    image = np.asarray(model.decode(styles, [0]))[0, ..., 0]
    rows = np.flatnonzero((image > 0.5).any(axis=1))
    _, top, _, bottom = glyph_outlines(model, styles, [0], "ゆ")[0].box
    assert 32 * (top + BASELINE) == pytest.approx(rows[0], abs=1)
    assert 32 * (bottom + BASELINE) == pytest.approx(rows[-1] + 1, abs=1)


def test_composes_characters(digits, written):
    assert len(written(unicodedata.normalize("NFD", "が"), named(digits, "が"))) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the text is empty"),
        (" \n\t", "the text is empty"),
        ("20 April", r"has no A p r i l; it writes 0 1 2 3 4 5 6 7 8 9"),
        ("2\x00\ufe0f", r"has no U\+0000 U\+FE0F; it writes"),
    ],
)
@pytest.mark.fault(
    "texts", "empty, or with characters that the model doesn't have", "refused, naming them"
)
def test_rejects_texts(text, message, digits, hand, key):
    with pytest.raises(ValueError, match=message):
        write(digits, text, hand, key=key)


def test_rejects_models_that_write_no_text(digits, hand, key):
    without_classes = replace(digits, network=digits.network.clone(classes=0))
    with pytest.raises(ValueError, match="has no classes, so it can't write"):
        write(without_classes, "1", hand, key=key)
    coloured = replace(digits, network=digits.network.clone(image_shape=(32, 32, 3)))
    with pytest.raises(ValueError, match="outlines are those of grey characters"):
        write(coloured, "1", hand, key=key)

"""Morphology of drawn strokes whose measures are known."""

import numpy as np
import pytest

from jvae_jax.evaluation.morphology import measure


def draw(length, thickness, slant=0.0, *, size=40, centre=(19.5, 19.5), ink=255.0, ground=0.0):
    """An antialiased stroke with round ends, whose tip leans to the right by the slant."""
    y, x = np.mgrid[:size, :size] - np.reshape(centre, (2, 1, 1))
    angle = np.deg2rad(slant)
    along, across = x * np.sin(angle) - y * np.cos(angle), x * np.cos(angle) + y * np.sin(angle)
    beyond = np.maximum(np.abs(along) - length / 2, 0)
    distance = np.hypot(across, beyond) - thickness / 2
    coverage = np.clip(0.5 - distance, 0, 1)
    return (ground + (ink - ground) * coverage).round().astype(np.uint8)[..., None]


@pytest.mark.parametrize("slant", [-30.0, -10.0, 0.0, 20.0, 45.0])
@pytest.mark.parametrize("thickness", [2.0, 3.0, 5.0])
def test_stroke_of_known_slant_thickness_and_length(slant, thickness):
    """The round ends add the thickness to the length of the ink, half of it to the skeleton's."""
    measures = measure(draw(22, thickness, slant)[None])
    # A thick stroke's ends are round, not slanted.
    np.testing.assert_allclose(measures.slant, slant, atol=0.2 + 0.4 * thickness)
    np.testing.assert_allclose(measures.thickness, thickness, atol=0.4)
    np.testing.assert_allclose(measures.length, 22, atol=0.1 * 22 + thickness / 2)
    area = 22 * thickness + np.pi * thickness**2 / 4
    np.testing.assert_allclose(measures.area, area, rtol=0.06)


def test_box_holds_95_percent_of_the_ink():
    """A bar of 8 x 20 pixels: 0.95 of both; a parallelogram of the same rows: the same."""
    bar = np.zeros((30, 40), np.uint8)
    bar[5:25, 16:24] = 255
    sheared = np.stack([np.roll(row, 14 - index) for index, row in enumerate(bar)])
    measures = measure(np.stack([bar, sheared])[..., None])
    np.testing.assert_allclose(measures.slant, [0, 45], atol=1e-3)
    np.testing.assert_allclose(measures.width, 0.95 * 8, rtol=1e-3)
    np.testing.assert_allclose(measures.height, 0.95 * 20, rtol=1e-3)
    np.testing.assert_allclose(measures.area, 160, rtol=0.03)


def test_lengths_grow_with_the_image():
    small, large = measure(draw(16, 4, 15)[None]), measure(draw(32, 8, 15, size=80)[None])
    np.testing.assert_allclose(large.slant, small.slant, atol=1)
    for name, factor in (("thickness", 2), ("width", 2), ("height", 2), ("area", 4)):
        ratio = getattr(large, name) / getattr(small, name)
        np.testing.assert_allclose(ratio, factor, rtol=0.1, err_msg=name)


def test_place_ground_and_ink_do_not_matter():
    """Shifted, on grey ground, faint, or dark on bright ground."""
    reference = measure(draw(18, 3, 12)[None])
    others = measure(
        np.stack(
            [
                draw(18, 3, 12, centre=(15.5, 23.5)),
                draw(18, 3, 12, ground=90, ink=250),
                draw(18, 3, 12, ink=60),
                255 - draw(18, 3, 12),
            ]
        )
    )
    for name, values in others._asdict().items():
        expected = np.repeat(getattr(reference, name), 4)
        np.testing.assert_allclose(values, expected, rtol=0.02, atol=0.05, err_msg=name)
    inverted = [values[3] for values in others]
    np.testing.assert_allclose(inverted, [values[0] for values in reference], rtol=1e-5)


def test_thin_line_and_dot_have_measures():
    thin, dot = np.zeros((2, 20, 20, 1), np.uint8)
    thin[4:16, 10] = 255
    dot[9, 9] = 255
    measures = measure(np.stack([thin, dot]))
    np.testing.assert_allclose(measures.thickness, 1, atol=0.5)
    np.testing.assert_allclose(measures.length[0], 12, atol=1.5)
    assert np.isfinite(measures.width).all()
    assert np.isfinite(measures.slant[0])


def test_empty_images_have_no_measures_but_area():
    """Black, white, and grey of little contrast, among others."""
    images = np.stack([np.full((12, 12, 1), level, np.uint8) for level in (0, 255, 90)])
    images[2, 4:8, 4:8] += 15
    stroke = draw(5, 2, size=12, centre=(5.5, 5.5))
    measures = measure(np.concatenate([images, stroke[None]]))
    assert (measures.area[:3] == 0).all()
    for name in ("slant", "thickness", "length", "width", "height"):
        values = getattr(measures, name)
        assert np.isnan(values[:3]).all()
        assert np.isfinite(values[3])


def test_images_are_measured_alone():
    """Whatever the number of images: of none, one, and more than are measured at a time."""
    rng = np.random.default_rng(0)
    images = np.stack([draw(8, 2 + rng.random(), 30 * rng.random(), size=16) for _ in range(515)])
    images = np.roll(images, -12, axis=(1, 2))
    measures = measure(images)
    for index in (0, 511, 514):
        alone = measure(images[index : index + 1])
        for name, values in alone._asdict().items():
            np.testing.assert_allclose(
                values, getattr(measures, name)[index : index + 1], rtol=1e-5
            )
    assert [values.shape for values in measure(images[:0])] == [(0,)] * 6


@pytest.mark.parametrize(
    ("shape", "message"),
    [((2, 8, 8, 3), "grey images, got 3 channels"), ((2, 2, 9, 1), "at least 3 x 3 .* got 2 x 9")],
)
def test_rejects_other_images(shape, message):
    with pytest.raises(ValueError, match=message):
        measure(np.zeros(shape, np.uint8))

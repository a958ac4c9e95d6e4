"""Outlines against shapes whose area and number of contours are known."""

import jax
import numpy as np
import pytest
from matplotlib.path import Path

import jvae_jax
from jvae_jax.handwriting.outlines import Outline, trace

CENTRES = np.stack(np.meshgrid(np.arange(32) + 0.5, np.arange(32) + 0.5), axis=-1)


def disk(radius, x=16.0, y=16.0, sharpness=4.0):
    """Brightness of a disk whose edge, at the level 1/2, is at this radius."""
    distance = np.hypot(CENTRES[..., 0] - x, CENTRES[..., 1] - y)
    return 1 / (1 + np.exp(sharpness * (distance - radius)))


def points_of(contour, steps=20):
    """Points on the curves, by Bernstein polynomials."""
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    weights = np.concatenate([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], axis=1)
    return np.einsum("sp,cpd->csd", weights, contour).reshape(-1, 2)


def signed_area(contour):
    x, y = points_of(contour).T
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2


def covered(outline):
    """Whether the centre of each pixel is inside, by the even-odd rule."""
    inside = np.zeros(32 * 32, bool)
    for contour in outline.contours:
        inside ^= Path(points_of(contour)).contains_points(CENTRES.reshape(-1, 2))
    return inside.reshape(32, 32)


@pytest.mark.parametrize("radius", [3.0, 6.5, 12.0])
def test_disk_has_its_area_in_few_curves(radius):
    outline = trace(disk(radius))
    (contour,) = outline.contours
    assert signed_area(contour) == pytest.approx(np.pi * radius**2, rel=0.02)
    assert np.abs(np.hypot(*(points_of(contour) - 16).T) - radius).max() < 0.2
    assert len(contour) <= 20
    box = [16 - radius, 16 - radius, 16 + radius, 16 + radius]
    np.testing.assert_allclose(outline.box, box, atol=0.3)


def test_hole_runs_the_other_way_round():
    ring = disk(11) - disk(5)
    areas = sorted(signed_area(contour) for contour in trace(ring).contours)
    assert len(areas) == 2
    assert areas[0] * areas[1] < 0
    assert abs(sum(areas)) == pytest.approx(np.pi * (11**2 - 5**2), rel=0.02)


def test_curves_are_joined_and_closed():
    for contour in trace(disk(11) - disk(5)).contours:
        np.testing.assert_allclose(contour[:, 3], np.roll(contour[:, 0], -1, axis=0), atol=1e-9)


def test_follows_a_shifted_and_an_inverted_image():
    outline = trace(disk(6, 12, 13))
    shifted = trace(disk(6, 15, 11))
    assert len(outline.contours) == len(shifted.contours) == 1
    np.testing.assert_allclose(np.array(shifted.box) - outline.box, [3, -2, 3, -2], atol=0.1)
    np.testing.assert_allclose(trace(1 - disk(6, 12, 13)).box, outline.box, atol=1e-6)


def test_grey_ground_and_faint_ink_make_no_difference():
    outline, faint = trace(disk(6)), trace(0.2 + 0.4 * disk(6))
    np.testing.assert_allclose(outline.box, faint.box, atol=0.1)


def test_faint_strokes_remain_beside_dark_ones():
    both = disk(5, 9, 9) + 0.4 * disk(3, 24, 24)  # below half of the highest brightness
    areas = sorted(abs(signed_area(contour)) for contour in trace(both).contours)
    np.testing.assert_allclose(areas, [np.pi * 9, np.pi * 25], rtol=0.2)


def test_specks_are_left_out():
    speck = disk(8, 12, 12)
    speck[28, 28] = 0.6
    assert len(trace(speck).contours) == 1


def test_ink_reaching_the_border_is_closed():
    image = np.zeros((32, 32))
    image[:, 10:20] = 1
    (contour,) = trace(image).contours
    assert abs(signed_area(contour)) == pytest.approx(320, rel=0.05)


def test_scales_then_shifts():
    outline = Outline((np.arange(8.0).reshape(1, 4, 2),))
    moved = outline.scaled(2.0).shifted(10.0, -1.0)
    np.testing.assert_allclose(moved.contours[0][0, 1], [2 * 2 + 10, 2 * 3 - 1])
    assert moved.box == (10, 1, 22, 13)


def test_box_is_that_of_the_curve_not_of_its_control_points():
    arch = np.array([[[0.0, 0.0], [0.0, 4.0], [4.0, 4.0], [4.0, 0.0]]])
    assert Outline((arch,)).box == pytest.approx((0, 0, 4, 3))


def test_blank_image_has_no_contours():
    outline = trace(np.full((32, 32), 0.3))
    assert outline.contours == ()
    with pytest.raises(ValueError, match="there is no ink"):
        _ = outline.box


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((32, 32, 1)), r"grey image, got shape \(32, 32, 1\)"),
        (np.zeros((0, 0)), r"got shape \(0, 0\)"),
        (np.full((32, 32), 2.0), r"values in \[0, 1\]"),
        (np.full((32, 32), np.nan), r"values in \[0, 1\]"),
    ],
)
@pytest.mark.usefixtures("without_jaxtyping")
def test_rejects_other_images(image, message):
    with pytest.raises(ValueError, match=message):
        trace(image)


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.long)])
def test_agrees_with_the_decoded_digits(count):
    """Intersection over union with the image thresholded at 1/2, and few points."""
    model = jvae_jax.load("digits")
    z = np.asarray(jax.random.normal(jax.random.key(1), (count, model.network.latents)))
    images = np.asarray(model.decode(z, np.arange(count) % 10))[..., 0]
    outlines = [trace(image) for image in images]
    pairs = [
        (covered(outline), image > 0.5) for outline, image in zip(outlines, images, strict=True)
    ]
    overlap = [(a & b).sum() / (a | b).sum() for a, b in pairs]
    assert np.mean(overlap) >= 0.93
    assert np.mean([sum(map(len, outline.contours)) for outline in outlines]) <= 40

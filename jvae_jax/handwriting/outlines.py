"""Outlines of grey characters: closed contours of cubic Bézier curves."""

from dataclasses import dataclass

import numpy as np
from fontTools.misc.bezierTools import calcCubicBounds
from jaxtyping import Float

_MIN_CONTRAST = 0.1
"""Difference in brightness from the ground up to which there is no ink."""
_MARGIN = 2
"""Pixels by which an image is padded, so that contours are closed."""
_SAMPLING = 8
"""Samples per pixel of the interpolated logits."""
_TOLERANCE = 0.05
"""Root mean square distance of the curves from the contours, in pixels."""
_LEAST_SPOT, _LEAST_HOLE = 2.5, 0.5
"""Areas, in pixels, up to which ink, and holes in it, are specks and not part of a character."""
_LEAST = 1e-3
"""Relative contrasts are limited to this and one minus this, as their logits are interpolated."""
_WINDOW = 0.28
"""Side of the window in which the brightness of ink is found, as a fraction of the longer side."""
_FAINTEST = 0.5
"""Least contrast of ink, as a fraction of the image's highest."""


@dataclass(frozen=True, eq=False)
class Outline:
    """Outline of a character, of closed contours.

    Attributes:
        contours: control points (x, y) of the cubic Bézier curves of each contour,
            (curves, 4, 2), in pixels from the upper left corner of the image, y downwards. The
            last curve of a contour ends where the first begins. The ink is on the right of the
            contours, if one looks along them on the image.
    """

    contours: tuple[Float[np.ndarray, "_ 4 2"], ...]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom end of the curves.

        Raises:
            ValueError: if there is no contour.
        """
        if not self.contours:
            raise ValueError("there is no ink, so the outline has no box")
        bounds = [calcCubicBounds(*curve) for contour in self.contours for curve in contour]
        left, top, right, bottom = np.transpose(bounds)
        return float(left.min()), float(top.min()), float(right.max()), float(bottom.max())

    def scaled(self, scale: float) -> "Outline":
        """Returns the outline scaled about the origin."""
        return Outline(tuple(scale * contour for contour in self.contours))

    def shifted(self, x: float, y: float) -> "Outline":
        """Returns the outline shifted."""
        return Outline(tuple(contour + np.array([x, y]) for contour in self.contours))


def trace(image: Float[np.ndarray, "height width"]) -> Outline:
    """Traces the outline of a grey character, midway between the brightness of ground and ink.

    The brightness of the ground is the median of the image's border. That of the ink is the one
    around a pixel which differs most from it, so that faint strokes remain beside dark ones; where
    ink is white on black, the outline is at the level 1/2. Logits of this relative contrast are
    interpolated by bicubic splines. The contours in between are approximated by smoothing splines,
    with as few knots as the tolerance takes (Dierckx, *Curve and Surface Fitting with Splines*).

    Args:
        image: brightness in [0, 1].

    Returns:
        The outline; without contours if the image is blank.

    Raises:
        ValueError: if the image isn't grey, or values aren't in [0, 1].
    """
    from scipy import ndimage
    from scipy.interpolate import RectBivariateSpline
    from scipy.special import logit
    from skimage.measure import find_contours

    image = np.asarray(image, np.float64)
    if image.ndim != 2 or image.size == 0:
        raise ValueError(f"an outline is traced of a grey image, got shape {image.shape}")
    if not ((image >= 0) & (image <= 1)).all():
        raise ValueError("an outline is traced of an image with values in [0, 1]")
    contrast = np.abs(image - np.median(np.r_[image[0], image[-1], image[:, 0], image[:, -1]]))
    if contrast.max() <= _MIN_CONTRAST:
        return Outline(())
    window = max(3, round(_WINDOW * max(image.shape)))
    ink = ndimage.gaussian_filter(ndimage.maximum_filter(contrast, window), window / 4)
    relative = contrast / np.maximum(ink, _FAINTEST * contrast.max())
    logits = logit(relative.clip(_LEAST, 1 - _LEAST))
    logits = np.pad(logits, _MARGIN, constant_values=logit(_LEAST))
    rows, columns = (np.arange(length, dtype=np.float64) for length in logits.shape)
    fine_rows, fine_columns = (
        np.linspace(0, length - 1, (length - 1) * _SAMPLING + 1) for length in logits.shape
    )
    fine = RectBivariateSpline(rows, columns, logits)(fine_rows, fine_columns)
    contours = []
    for polygon in find_contours(fine, 0.0, positive_orientation="low"):
        # The centre of the first pixel is at (0.5, 0.5).
        points = polygon[:, ::-1] / _SAMPLING - _MARGIN + 0.5
        if not -_LEAST_HOLE <= _signed_area(points) <= _LEAST_SPOT:
            contours.append(_fit(points))
    return Outline(tuple(contours))


def _signed_area(points: Float[np.ndarray, "points 2"]) -> float:
    """Area of a closed polygon; below 0 if it is a hole."""
    x, y = points.T
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2


def _fit(points: Float[np.ndarray, "points 2"]) -> Float[np.ndarray, "curves 4 2"]:
    """Approximates a closed polygon by a periodic cubic spline, as Bézier curves."""
    from scipy.interpolate import PPoly, splprep

    is_new = np.r_[True, (np.diff(points, axis=0) != 0).any(axis=1)]
    points = points[is_new]
    smoothing = len(points) * _TOLERANCE**2
    (knots, coefficients, degree), _ = splprep(points.T, s=smoothing, per=True)
    curves = []
    for values in coefficients:
        pieces = PPoly.from_spline((knots, values, degree))
        inside = (pieces.x[:-1] >= 0) & (pieces.x[1:] <= 1) & (np.diff(pieces.x) > 0)
        length = np.diff(pieces.x)[inside]
        cubic, square, slope, start = pieces.c[:, inside]
        first = start + slope * length / 3
        second = first + (slope + square * length) * length / 3
        end = start + ((cubic * length + square) * length + slope) * length
        curves.append(np.stack([start, first, second, end], axis=1))
    return np.stack(curves, axis=2)

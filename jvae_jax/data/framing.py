"""Scale, position, contrast and stroke thickness of characters: estimated, and applied to a photo.

A photo or drawing of a character differs from the training images in size, place, polarity,
contrast and pen, and may have shadows and ruled lines. :func:`frame_image` finds the character and
maps it to the framing of the training images.
"""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from PIL import Image

from jvae_jax.data.images import decode_image, pad_to_square
from jvae_jax.types import Pixels
from jvae_jax.validation import as_pixels

logger = logging.getLogger(__name__)

_WORKING_SIZE = 256
"""Height and width, in pixels, at which ink is detected and strokes are measured."""
_STRONG, _WEAK = 0.7, 0.4
"""Fractions of the highest contrast above which pixels are ink: for themselves, and if connected to
such pixels."""
_MIN_CONTRAST = 24
"""Differences in brightness from the background up to this, of 255, are noise."""
_PEN_CONTRAST = 110
"""Contrast, of 255, above which straight lines without other strokes are a character."""
_WIDEST_STROKE = 85
"""Width, in pixels of the working size, from which dark areas are shadows instead of strokes."""
_NARROW_STROKE = 25
"""Width up to which strokes are measured more locally, which shadows disturb less."""
_FAINT = 70
"""Contrast, of 255, up to which wide strokes may be uneven light."""
_GAP = 20
"""Widest gap, in pixels of the working size, between two strokes of one character."""
_SHEET_SIZE, _SHEET_WORKING_SIZE = 1536, 512
"""Height and width at which characters are cut from a sheet, and at which they are found. Lengths
in pixels of the working size hold there, too, where they are smaller parts of the image."""
_MAX_CHARACTERS = 300
"""Groups of strokes on a sheet, above which they are noise."""
_LEAST_GAP = 0.15
"""Gap between strokes of a character that is bridged on a sheet, as a fraction of its longer side,
if the model's characters have connected strokes."""
_CROP_MARGIN = 0.25
"""Room around a character that is cut from a sheet, as a fraction of its longer side."""
_STRAIGHT, _FLAT = 3.0, 0.25
"""Standard deviation from a straight line, in pixels of the working size, and slope, below which a
component may be a ruled line."""
_GAP_QUANTILE = 0.98
"""Quantile of the gaps between strokes of a character that are bridged."""
_LEAST_STROKE = 0.03
"""Fraction of a character's ink below which a component is noise."""
_LIKE_LARGEST = 0.3
"""Groups with this fraction of the largest one's ink, or more, are characters of their own."""


class Framing(NamedTuple):
    """Scale, position, contrast and stroke thickness of the ink on an image.

    Attributes:
        extent: longer side of the ink's bounding box, as a fraction of the longer image side.
        row, column: centre of mass of the ink, as fractions of image height and width.
        background: brightness of the background, in 0 to 255.
        ink: brightness of the ink, in 0 to 255.
        thickness: mean thickness of the strokes, as a fraction of the longer image side.
        gap: gap between strokes of a character that 98 % don't exceed, as a fraction of the
            longer image side; 0 if strokes are connected.
    """

    extent: float
    row: float
    column: float
    background: float
    ink: float
    thickness: float
    gap: float = 0.0


class SegmentedCharacter(NamedTuple):
    """The ink of one character on a photo, at a working size.

    Attributes:
        ink: contrast of the ink, 0 to 255, and 0 around the character.
        mask: pixels of the character.
        groups: number of groups of strokes that may be characters; this one is the largest.
    """

    ink: Float[np.ndarray, "size size"]
    mask: Bool[np.ndarray, "size size"]
    groups: int


def estimate_framing(images: Pixels) -> Framing:
    """Estimates the framing of a dataset or of generated images: medians, and the gap's quantile.

    Args:
        images: uint8, (batch, height, width, channels).

    Raises:
        ValueError: if the images aren't uint8, or none contains ink.
    """
    framings, gaps = [], []
    images = as_pixels(images)
    for image in images:
        pixels = image.astype(np.float32).mean(axis=-1)
        background = float(np.median(_border(pixels)))
        difference = np.abs(pixels - background)
        mask = difference > max(difference.max() / 2, _MIN_CONTRAST)
        if mask.any():
            ink = float(np.percentile(pixels[mask], 90))
            thickness = _thickness(_enlarged(difference) > difference.max() / 2)
            framings.append((*_place(mask), background, ink, thickness))
            gaps.append(_widest_gap(mask))
    if not framings:
        raise ValueError(f"none of {len(images)} images contains ink")
    return Framing(
        *np.median(framings, axis=0).tolist(), gap=float(np.quantile(gaps, _GAP_QUANTILE))
    )


def frame_image(
    file: Path | bytes, framing: Framing, image_shape: tuple[int, int, int]
) -> UInt8[np.ndarray, "1 height width channels"]:
    """Scales, shifts and adjusts the contrast of an image of one character to match a framing.

    Strokes that are thinner than the framing's are thickened. If there are several characters, the
    largest is framed, and a warning logged. Three-channel images are only padded to a square and
    resized, as in :mod:`jvae_jax.data.image_folder`.

    Args:
        file: path or content of an image file, in any format that Pillow reads.
        framing: framing of the model's training images.
        image_shape: height, width and channels of the training images.

    Raises:
        ValueError: if the file can't be decoded, or the image contains no ink.
    """
    size, _, channels = image_shape
    if channels == 3:
        return np.broadcast_to(decode_image(file, size), (1, *image_shape))
    pixels = decode_image(file, _WORKING_SIZE, grey=True)[..., 0]
    character = segment_character(pixels, framing.gap / framing.extent)
    if character.groups > 1:
        logger.warning(
            "the image holds %d groups of strokes; the largest is used", character.groups
        )
    return _frame(character, framing, size)


def frame_sheet(
    file: Path | bytes, framing: Framing, image_shape: tuple[int, int, int]
) -> UInt8[np.ndarray, "characters height width channels"]:
    """Cuts a scanned sheet into its characters, and frames each as :func:`frame_image` does.

    Characters are groups of strokes, in the order in which rows are read. Groups that are much
    smaller than the others are left out. Between characters there must be more room than between
    the strokes of one.

    Args:
        file: path or content of an image file, in any format that Pillow reads.
        framing: framing of the model's training images.
        image_shape: height, width and channels of the training images.

    Returns:
        A single character if there is one only, or if the images aren't grey.

    Raises:
        ValueError: if the file can't be decoded, or the image contains no ink, or noise.
    """
    size, _, channels = image_shape
    if channels == 3:
        return frame_image(file, framing, image_shape)
    pixels = decode_image(file, _SHEET_SIZE, grey=True)[..., 0]
    characters = _find_characters(pixels, framing.gap / framing.extent)
    if len(characters) > _MAX_CHARACTERS:
        raise ValueError(
            f"{len(characters)} groups of strokes are found on it, at most {_MAX_CHARACTERS} are "
            "characters"
        )
    if len(characters) < 2:
        return frame_image(file, framing, image_shape)
    framed, ground = [], np.median(pixels)
    for top, left, region in characters:
        height, width = region.shape
        crop = pixels[top : top + height, left : left + width]
        crop = np.where(region, crop, ground).astype(np.uint8)
        margin = round(_CROP_MARGIN * max(height, width))
        square = pad_to_square(np.pad(crop, margin, mode="edge"))
        resized = _resized(square, _WORKING_SIZE)
        # All strokes of the region belong to the character, however far apart they are.
        character = segment_character(resized, gap=1.0, ruled=False)
        framed.append(_frame(character, framing, size))
    return np.concatenate(framed)


def _frame(
    character: "SegmentedCharacter", framing: Framing, size: int
) -> UInt8[np.ndarray, "1 height width 1"]:
    """Thickens, scales and shifts a character to match a framing."""
    from scipy import ndimage
    from skimage.morphology import disk

    ink, mask, _ = character
    extent, _, _ = _place(mask)
    missing = framing.thickness * extent / framing.extent - _thickness(mask)
    if (radius := round(missing * _WORKING_SIZE / 2)) >= 1:
        footprint = disk(radius)
        ink = np.asarray(ndimage.grey_dilation(ink, footprint=footprint))
        mask = np.asarray(ndimage.binary_dilation(mask, structure=footprint))
    extent, row, column = _place(mask)
    # The square crop of the image that becomes the result; it may extend beyond the image.
    side = _WORKING_SIZE * extent / framing.extent
    top = _WORKING_SIZE * row - side * framing.row
    left = _WORKING_SIZE * column - side * framing.column
    margin = max(0, *(int(np.ceil(overhang)) for overhang in _overhangs(top, left, side)))
    box = (left + margin, top + margin, left + margin + side, top + margin + side)
    padded = Image.fromarray(np.pad(ink, margin))
    resized = np.asarray(padded.resize((size, size), Image.Resampling.BILINEAR, box=box))
    gain = (framing.ink - framing.background) / np.percentile(np.extract(mask, ink), 90)
    levels = framing.background + resized * gain
    return levels.clip(0, 255).round().astype(np.uint8)[None, ..., None]


def segment_character(
    pixels: UInt8[np.ndarray, "size size"], gap: float = 0.0, *, ruled: bool = True
) -> SegmentedCharacter:
    """Finds the character on a photo or drawing: the group of strokes with the most ink.

    Other groups belong to it if their distance is at most ``gap`` times the longer side of the
    character with them.

    Ink is what stands out from the background around it: what a grey closing, or an opening for
    bright ink, fills. Dark ink is measured in relation to the brightness of the paper, which light
    and shadows change. Long straight lines across the image are those of ruled paper.

    Args:
        pixels: square grey image of the working size.
        gap: widest gap between strokes of a character, as a fraction of its longer side.
        ruled: whether the paper may be ruled.

    Raises:
        ValueError: if the image contains no ink.
    """
    from scipy import ndimage
    from skimage.measure import label

    ink, mask = _find_strokes(pixels, ruled)
    grown = ndimage.binary_dilation(mask, iterations=_GAP // 2)
    joined = np.asarray(label(grown, connectivity=1))
    amounts = np.bincount(joined.ravel(), weights=(ink * mask).ravel())
    # Shadows and other objects reach beyond the image; a character seldom does.
    inside = np.isin(np.arange(len(amounts)), _border(joined), invert=True)
    if (amounts * inside).max() > _LIKE_LARGEST * amounts.max():
        amounts *= inside
    largest = amounts.max()
    groups = joined * mask
    mask = groups == np.argmax(amounts)
    amounts[np.argmax(amounts)] = 0
    while number := _near_group(mask, groups, np.flatnonzero(amounts), gap):
        mask |= groups == number
        amounts[number] = 0
    # Strokes keep their soft edges.
    character = np.where(ndimage.binary_dilation(mask, iterations=4), ink, 0)
    others = int((amounts >= _LIKE_LARGEST * largest).sum())
    return SegmentedCharacter(character, mask, 1 + others)


def _find_strokes(
    pixels: UInt8[np.ndarray, "size size"], ruled: bool = True
) -> tuple[Float[np.ndarray, "size size"], Bool[np.ndarray, "size size"]]:
    """Returns the contrast of ink, and the pixels of strokes without the lines of ruled paper.

    Raises:
        ValueError: if there are none.
    """
    from skimage.filters import apply_hysteresis_threshold

    ink = _contrast(pixels)
    highest = _strength(ink)
    if highest <= _MIN_CONTRAST:
        raise ValueError("nothing is drawn on it: no ink stands out from the background")
    strokes = np.asarray(apply_hysteresis_threshold(ink, _WEAK * highest, _STRONG * highest), bool)
    mask = _without_ruled_lines(strokes) if ruled else strokes
    if not mask.any() and highest > _PEN_CONTRAST:
        mask = strokes
    if not mask.any():
        raise ValueError("nothing is drawn on it but straight lines, as those of ruled paper")
    return ink, mask


def _find_characters(
    pixels: UInt8[np.ndarray, "size size"], gap: float
) -> list[tuple[int, int, Bool[np.ndarray, "height width"]]]:
    """Finds the characters of a sheet.

    Args:
        pixels: square grey image.
        gap: widest gap between strokes of a character, as a fraction of its longer side.

    Returns:
        Top and left end, and the region, of each, in reading order.
    """
    from scipy import ndimage
    from skimage.measure import label, regionprops

    scale = len(pixels) // _SHEET_WORKING_SIZE
    _, mask = _find_strokes(_resized(pixels, _SHEET_WORKING_SIZE))
    strokes = regionprops(np.asarray(label(mask)))
    sides = np.array([max(stroke.image.shape) for stroke in strokes])
    # The extent of a typical character, in which strokes count by their ink.
    order = np.argsort(sides)
    ink = np.cumsum(np.array([stroke.area for stroke in strokes])[order])
    extent = float(sides[order][np.searchsorted(ink, ink[-1] / 2)])
    reach = max(1, round(max(gap, _LEAST_GAP) * extent / 2))
    grown = ndimage.binary_dilation(mask, structure=np.ones((3, 3)), iterations=reach)
    groups = regionprops(np.asarray(label(grown)))
    sides = np.array([max(group.image.shape) for group in groups]) - 2 * reach
    is_large = sides >= _LIKE_LARGEST * np.median(sides)
    characters = [group for group, large in zip(groups, is_large, strict=True) if large]
    return [
        (
            scale * group.bbox[0],
            scale * group.bbox[1],
            group.image.repeat(scale, axis=0).repeat(scale, axis=1),
        )
        for group in _in_reading_order(characters)
    ]


def _resized(
    pixels: UInt8[np.ndarray, "rows columns"], size: int
) -> UInt8[np.ndarray, "size size"]:
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def _in_reading_order(groups: list[Any]) -> list[Any]:
    """Sorts regions into rows; one begins a row if its top is below the centres of the last row."""
    rows: list[list[Any]] = []
    for group in sorted(groups, key=lambda group: group.centroid[0]):
        if not rows or group.bbox[0] > np.mean([each.centroid[0] for each in rows[-1]]):
            rows.append([])
        rows[-1].append(group)
    return [group for row in rows for group in sorted(row, key=lambda group: group.bbox[1])]


def _near_group(
    mask: Bool[np.ndarray, "size size"],
    groups: Int[np.ndarray, "size size"],
    numbers: Int[np.ndarray, "groups"],
    gap: float,
) -> int:
    """Number of a group that is near enough to the mask to belong to it, or 0."""
    from scipy import ndimage

    for number in numbers.tolist():
        group = groups == number
        reach = int(np.ceil(gap * _WORKING_SIZE * _place(mask | group)[0]))
        if reach and (ndimage.binary_dilation(mask, iterations=reach) & group).any():
            return number
    return 0


def _contrast(pixels: UInt8[np.ndarray, "size size"]) -> Float[np.ndarray, "size size"]:
    """Contrast of ink with the background around it, 0 to 255."""
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(pixels.astype(np.float32), 1)
    # Ink differs most from its surroundings and dominates the third moment.
    coarse = smooth[::4, ::4]
    surroundings = ndimage.median_filter(coarse, _WIDEST_STROKE // 4, mode="nearest")
    is_dark = bool(((coarse - surroundings) ** 3).mean() < 0)
    narrow, wide = (_filled(smooth, is_dark, width) for width in (_NARROW_STROKE, _WIDEST_STROKE))
    highest = _strength(wide)
    strong = wide > _STRONG * highest
    has_wide_strokes = (strong & (narrow < _WEAK * highest)).sum() > 0.02 * strong.sum()
    unevenness = 255 * (1 - surroundings.min() / max(surroundings.max(), 1))
    if has_wide_strokes and highest > min(_FAINT, 0.75 * unevenness):
        return wide
    return narrow


def _filled(
    smooth: Float[np.ndarray, "size size"], is_dark: bool, width: int
) -> Float[np.ndarray, "size size"]:
    """What a closing, or an opening for bright ink, fills, above its median."""
    from scipy import ndimage

    padded = np.pad(smooth, width, mode="edge")
    fill = ndimage.grey_closing if is_dark else ndimage.grey_opening
    background = fill(padded, size=(width, width))[width:-width, width:-width]
    if is_dark:
        ink = 255 * (background - smooth) / np.maximum(background, _MIN_CONTRAST)
    else:
        ink = smooth - background
    return (ink - np.median(ink)).clip(0)


def _strength(ink: Float[np.ndarray, "size size"]) -> float:
    """Highest contrast but for single pixels; a thin pen covers little more."""
    return float(np.percentile(ink, 99.9))


def _without_ruled_lines(mask: Bool[np.ndarray, "size size"]) -> Bool[np.ndarray, "size size"]:
    """Removes flat straight lines, with gaps or without, that cross the image or its border."""
    from scipy import ndimage
    from skimage.measure import label

    size = len(mask)
    components = np.asarray(label(ndimage.binary_dilation(mask, structure=np.ones((1, _GAP)))))
    kept = mask.copy()
    for number in range(1, components.max() + 1):
        rows, columns = np.nonzero(mask & (components == number))
        length = np.ptp(columns)
        crosses = length > size / 2 or {0, size - 1} & {rows.min(), rows.max(), *columns}
        if crosses and length > 0:
            slope, row = np.polyfit(columns, rows, 1)
            distance = np.std(rows - row - slope * columns)
            if abs(slope) < _FLAT and distance < _STRAIGHT:
                kept[rows, columns] = False
    return kept


def _overhangs(top: float, left: float, side: float) -> tuple[float, float, float, float]:
    """Distances by which a square crop exceeds the image at the top, left, bottom and right."""
    return -top, -left, top + side - _WORKING_SIZE, left + side - _WORKING_SIZE


def _widest_gap(mask: Bool[np.ndarray, "height width"]) -> float:
    """Distance up to which strokes must grow to be connected, as a fraction of the longer side."""
    from scipy import ndimage
    from skimage.measure import label

    labels = np.asarray(label(mask))
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    strokes = np.isin(labels, np.flatnonzero(areas >= _LEAST_STROKE * areas.sum()))
    for steps in range(max(mask.shape)):
        grown = ndimage.binary_dilation(strokes, iterations=steps) if steps else strokes
        if np.asarray(label(grown)).max() == 1:
            # Both strokes have grown, and touch.
            return (2 * steps + 1) / max(mask.shape) if steps else 0.0
    return 0.0


def _border(pixels: Shaped[np.ndarray, "height width"]) -> Shaped[np.ndarray, "border"]:
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])


def _enlarged(pixels: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "rows columns"]:
    """Enlarges an image so that its longer side has the working size or more."""
    scale = max(1, _WORKING_SIZE / max(pixels.shape))
    height, width = (max(1, round(scale * side)) for side in pixels.shape)
    image = Image.fromarray(pixels.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def _place(mask: Bool[np.ndarray, "height width"]) -> tuple[float, float, float]:
    """Extent, and row and column of the centre, of the ink; see :class:`Framing`."""
    rows, columns = np.nonzero(mask)
    extent = (max(np.ptp(rows), np.ptp(columns)) + 1) / max(mask.shape)
    row, column = (rows.mean() + 0.5) / mask.shape[0], (columns.mean() + 0.5) / mask.shape[1]
    return float(extent), float(row), float(column)


def _thickness(mask: Bool[np.ndarray, "height width"]) -> float:
    """Mean thickness of strokes, as a fraction of the longer image side."""
    from scipy.ndimage import distance_transform_edt
    from skimage.morphology import skeletonize

    distances = np.asarray(distance_transform_edt(np.pad(mask, 1)))[1:-1, 1:-1]
    return 2 * float(distances[skeletonize(mask)].mean()) / max(mask.shape)

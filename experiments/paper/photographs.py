"""Synthetic photographs of characters on paper."""

import io

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage import morphology, transform

CONDITIONS = ("plain", "gradient", "shadow", "ruled", "thin pen", "everything")
_SIDE = 400


def photograph(character, condition, rng):
    """Photographs a character: at any place and size, in perspective, blurred and noisy.

    Args:
        character: uint8, (height, width), bright on dark; blank for blank paper.
        condition: one of ``CONDITIONS``; under "everything", half of the pens are thin.
        rng: numpy generator of everything else.

    Returns:
        Content of a JPEG file, dark ink on bright paper.
    """
    everything = condition == "everything"
    size = int(rng.uniform(0.4, 0.8) * _SIDE)
    enlarged = Image.fromarray(character).resize((size, size), Image.Resampling.BICUBIC)
    ink = np.asarray(enlarged, np.float32) / 255
    if condition == "thin pen" or (everything and rng.random() < 0.5):
        skeleton = morphology.skeletonize(ink > 0.5)
        distances = ndimage.distance_transform_edt(~skeleton)
        ink = (distances <= rng.uniform(1, 3)) * float(skeleton.any())
    canvas = np.zeros((_SIDE, _SIDE), np.float32)
    top, left = (int(rng.uniform(0, _SIDE - size)) for _ in range(2))
    canvas[top : top + size, left : left + size] = ink
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * _SIDE
    moved = corners + rng.uniform(-0.06, 0.06, (4, 2)) * _SIDE
    canvas = transform.warp(canvas, transform.estimate_transform("projective", corners, moved))
    y, x = np.mgrid[:_SIDE, :_SIDE] / _SIDE
    paper = np.full((_SIDE, _SIDE), rng.uniform(170, 235))
    if condition == "ruled" or everything:
        spacing = rng.uniform(25, 60)
        rows = (y + rng.uniform(-0.05, 0.05) * x) * _SIDE + rng.uniform(0, spacing)
        paper -= (rows % spacing < 2) * rng.uniform(30, 70)
    light = np.ones((_SIDE, _SIDE))
    angle = rng.uniform(0, 2 * np.pi)
    distance = (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle)
    if condition == "gradient" or everything:
        light *= 0.72 + 0.4 * distance
    if condition == "shadow" or everything:
        edge = (distance + rng.uniform(-0.2, 0.2)) * _SIDE / rng.uniform(2, 15)
        light *= 1 - rng.uniform(0.25, 0.5) / (1 + np.exp(-edge))
    pixels = paper * light * (1 - rng.uniform(0.45, 0.8) * canvas)
    pixels = ndimage.gaussian_filter(pixels, rng.uniform(0.5, 2))
    pixels += rng.normal(0, rng.uniform(2, 8), pixels.shape)
    file = io.BytesIO()
    photo = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    photo.save(file, "jpeg", quality=int(rng.integers(60, 95)))
    return file.getvalue()

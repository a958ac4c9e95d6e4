"""Synthetic photographs of characters on paper, and how well a model reads them."""

import io

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage import morphology, transform

from jvae_jax import TrainedModel
from jvae_jax.data import Dataset
from jvae_jax.training.provenance import environment
from paper import studies

CONDITIONS = ("plain", "gradient", "shadow", "ruled", "thin pen", "everything")
_SIDE = 400


def photograph(character: np.ndarray, condition: str, rng: np.random.Generator) -> bytes:
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
        distances = np.asarray(ndimage.distance_transform_edt(~skeleton))
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
    quality = int(rng.integers(60, 95))
    return _encode(pixels.clip(0, 255).astype(np.uint8), "jpeg", quality=quality)


def photograph_row(
    model: TrainedModel, dataset: Dataset, condition: str, images: int, seed: int
) -> studies.Row:
    """Photographs test images and blank sheets of paper, and classifies them.

    Args:
        model: model with classes; q(c|x) classifies.
        dataset: dataset of the test images, grey and of the model's classes.
        condition: one of ``CONDITIONS``.
        images: number of test images, at most all, drawn anew for each condition, and of blank
            sheets.
        seed: seed of the images drawn and of the photographs.

    Returns:
        Fractions of the photographs that are classified correctly, refused, and framed as an image
        that is mostly ink; of the images as PNG files that are classified correctly; and of the
        blank sheets that are refused.
    """
    rng = np.random.default_rng([seed, CONDITIONS.index(condition)])
    framed: list[np.ndarray | None] = []
    correct, clean_correct = [], []
    images = min(images, len(dataset.test_labels))
    for index in rng.permutation(len(dataset.test_labels))[:images]:
        character, label = dataset.test_images[index, ..., 0], dataset.test_labels[index]
        framed.append(_frame(model, photograph(character, condition, rng)))
        correct.append(_predict(model, framed[-1]) == label)
        clean_correct.append(_predict(model, _frame(model, _encode(character, "png"))) == label)
    blank = np.zeros_like(dataset.test_images[0, ..., 0])
    refused_blank = [
        _frame(model, photograph(blank, condition, rng)) is None for _ in range(images)
    ]
    current = environment()
    return {
        "condition": condition,
        "model": model.name,
        "dataset": dataset.name,
        "seed": seed,
        "command": studies.command(),
        "trained_with": current["commit"],
        "accuracy": float(np.mean(correct)),
        "accuracy_of_files": float(np.mean(clean_correct)),
        "refused": float(np.mean([image is None for image in framed])),
        "mostly_ink": float(np.mean([_is_mostly_ink(image) for image in framed])),
        "blank_refused": float(np.mean(refused_blank)),
        "examples": len(framed),
        "environment": current,
    }


def _frame(model: TrainedModel, file: bytes) -> np.ndarray | None:
    """The character framed as the training images, or None if none is found."""
    try:
        return model.load_image(file)
    except ValueError:
        return None


def _is_mostly_ink(image: np.ndarray | None) -> bool:
    return image is not None and bool(np.mean(image > 127) > 0.5)


def _predict(model: TrainedModel, image: np.ndarray | None) -> int:
    """The most probable class, or -1 without an image."""
    if image is None:
        return -1
    return int(np.argmax(np.asarray(model.encode(image).logits)))


def _encode(pixels: np.ndarray, file_format: str, **options: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format, **options)
    return file.getvalue()

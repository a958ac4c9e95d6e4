"""Pictures of any format, mode and size, to square uint8 arrays.

Characters become ink that is bright on dark, as MNIST's are.
"""

import hashlib
import io
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from jvae_jax.data.source import Arrays, Say

UNLABELLED = "unlabelled"
"""The class whose label is -1."""

_NAMED = 3
"""So many of the unreadable are named."""


class Picture(NamedTuple):
    """A picture that hasn't been decoded yet.

    Attributes:
        class_name: what it shows, or ``unlabelled``.
        path: its place among the others, equal wherever they lie and however they are packed.
        file: where it lies, or what it holds.
    """

    class_name: str
    path: str
    file: Path | bytes


class UnreadableError(ValueError):
    """A picture that can't be decoded."""


class Pictures(NamedTuple):
    """Decoded pictures in the order of their paths."""

    paths: list[str]
    images: np.ndarray
    labels: np.ndarray


def decode_all(
    pictures: Iterable[Picture],
    class_names: Sequence[str],
    size: int,
    *,
    where: str,
    grey: bool = False,
    say: Say,
) -> Pictures:
    """Decodes pictures; what can't be read is left out, counted and named aloud.

    On a terminal, a bar shows how far it is.

    Args:
        pictures: in any order.
        class_names: what each label stands for; ``unlabelled`` is -1.
        size: height and width of the result.
        where: they lie, for messages.
        grey: whether colour is dropped. Else, one coloured picture makes all of them colour.
        say: is told what was left out, and of colour.

    Returns:
        Grey images with ink bright on dark, or coloured ones as they are.

    Raises:
        ValueError: if a class has no picture, or none that can be read.
    """
    found: dict[str, tuple[np.ndarray, int]] = {}
    unreadable: list[str] = []
    numbers = {name: label for label, name in enumerate(class_names)} | {UNLABELLED: -1}
    for picture in tqdm(pictures, desc="preparing", unit=" images", disable=None):
        try:
            image = decode(picture.file, size, grey=grey)
        except UnreadableError as error:
            name = picture.file if isinstance(picture.file, Path) else picture.path
            unreadable.append(f"{name} ({error})".encode(errors="backslashreplace").decode())
        else:
            found[picture.path] = image, numbers[picture.class_name]
    paths = sorted(found)
    labels = np.array([found[path][1] for path in paths], np.int32)
    trouble = _few(unreadable)
    for label, name in enumerate(class_names):
        if label not in labels:
            reason = f"; unreadable: {trouble}" if unreadable else ""
            raise ValueError(f"{where}: the class {name} has no picture that can be read{reason}")
    if unreadable:
        total = len(unreadable) + len(paths)
        say(f"left out as unreadable, {len(unreadable)} of {total} pictures: {trouble}")
    images = [found[path][0] for path in paths]
    coloured = sum(image.shape[-1] == 3 for image in images)
    if not coloured:
        return Pictures(paths, np.stack([ink_bright(image) for image in images]), labels)
    say(f"{coloured} of {len(images)} pictures are coloured, so all are taken as RGB, uninverted")
    return Pictures(
        paths, np.stack([np.broadcast_to(image, (size, size, 3)) for image in images]), labels
    )


def decode(file: Path | bytes, size: int, *, grey: bool = False) -> np.ndarray:
    """One picture, padded to a square in the colour of its border, and resized.

    Resizing is bilinear, and antialiased where it shrinks. What is transparent is white.
    Photographs are turned as their EXIF data say.

    Returns:
        uint8, (size, size, 3) where it has colour and ``grey`` is False, else (size, size, 1).

    Raises:
        UnreadableError: if it is no picture, a damaged one, can't be read, or is so large that it
            might be meant to exhaust the memory.
    """
    try:
        content = file.read_bytes() if isinstance(file, Path) else file
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = _opened(content)
    except OSError as error:
        raise UnreadableError(error.strerror or "no picture that Pillow reads") from error
    except Exception as error:  # Pillow's decoders raise whatever damage makes them raise.
        raise UnreadableError(str(error)) from error
    if image.mode == "RGB" and (grey or _is_grey(image)):
        image = image.convert("L")
    if image.width != image.height:
        image = Image.fromarray(_squared(np.asarray(image)))
    if image.width != size:
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.atleast_3d(np.asarray(image))


def ink_bright(image: np.ndarray) -> np.ndarray:
    """A grey image, (h, w, 1), inverted if its ink is darker than its border.

    Ink is what differs most from the border: the third moment about the border's median has the
    sign of that difference, whatever noise the paper has.
    """
    border = np.median(_border(image))
    moment = ((image.astype(np.float32) - border) ** 3).mean()
    if moment < 0 or (moment == 0 and border > 127):
        return 255 - image
    return image


def held_out(
    paths: Sequence[str], labels: np.ndarray, classes: int, share: float = 0.1
) -> np.ndarray:
    """Chooses the same share of every class for testing, by a hash of the paths.

    At least one, where a class has two; nothing of what is unlabelled.

    Returns:
        bool, (pictures,).
    """
    digests = [hashlib.sha256(path.encode(errors="surrogateescape")) for path in paths]
    order = np.array([digest.digest() for digest in digests], object).argsort()
    test = np.zeros(len(paths), bool)
    for label in range(classes):
        members = order[labels[order] == label]
        test[members[: max(round(share * len(members)), min(1, len(members) - 1))]] = True
    return test


def divided(images: np.ndarray, labels: np.ndarray, test: np.ndarray) -> Arrays:
    """The arrays of a data set whose examples are for testing where ``test`` holds."""
    return {
        "train_images": images[~test],
        "train_labels": labels[~test],
        "test_images": images[test],
        "test_labels": labels[test],
    }


def _opened(content: bytes) -> Image.Image:
    """The picture in mode L or RGB, upright."""
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L", "I", "F") else "RGB")


def _squared(pixels: np.ndarray) -> np.ndarray:
    """(h, w) or (h, w, 3) in the middle of a square of the median of its border."""
    height, width, *channels = pixels.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.empty((side, side, *channels), np.uint8)
    square[:] = np.median(_border(np.atleast_3d(pixels)), axis=0)
    square[top : top + height, left : left + width] = pixels
    return square


def _is_grey(image: Image.Image) -> bool:
    """Whether its three channels are alike, but for what JPEG's rounding makes of them."""
    pixels = np.asarray(image)
    return int((pixels.max(axis=-1) - pixels.min(axis=-1)).max()) <= 4


def _border(images: np.ndarray) -> np.ndarray:
    """The outermost pixels of images (..., h, w, channels), as (..., pixels, channels)."""
    sides = images[..., 0, :, :], images[..., -1, :, :], images[..., :, 0, :], images[..., :, -1, :]
    return np.concatenate(sides, axis=-2)


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more

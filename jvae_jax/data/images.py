"""Decoding of image files to square uint8 arrays, with bright ink on dark background as MNIST's."""

import hashlib
import io
import operator
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from jvae_jax.data.source import Arrays
from jvae_jax.memory import require_memory
from jvae_jax.messages import escape

UNLABELLED = "unlabelled"
"""Name of the pseudo-class of unlabelled images; their label is -1."""

_MAX_SIDE = 1 << 14
"""Largest height or width of an image, in pixels: padded to a square, it takes up to 0.8 GB."""
_MAX_LISTED = 3
"""Number of unreadable images that a message lists by name."""


class EncodedImage(NamedTuple):
    """An image that hasn't been decoded yet.

    Attributes:
        class_name: name of its class, or ``unlabelled``.
        path: path relative to the dataset's root; defines order and train/test split, and is
            independent of the location and archive format of the dataset.
        file: path of the file, or its content.
    """

    class_name: str
    path: str
    file: Path | bytes


class UnreadableImageError(ValueError):
    """An image can't be decoded."""


class DecodedImages(NamedTuple):
    """Decoded images, sorted by path.

    Attributes:
        paths: relative paths of the images.
        images: uint8, (images, size, size, channels).
        labels: int32, (images,); class indices, or -1 for unlabelled images.
        notes: warnings about unreadable and coloured images.
    """

    paths: list[str]
    images: np.ndarray
    labels: np.ndarray
    notes: tuple[str, ...]


def decode_images(
    images: Iterable[EncodedImage],
    class_names: Sequence[str],
    size: int,
    *,
    source: str,
    grey: bool = False,
) -> DecodedImages:
    """Decodes images; unreadable ones are skipped and reported in the notes.

    Shows a progress bar if stderr is a terminal.

    Args:
        images: encoded images, in any order.
        class_names: class names, in the order of the labels.
        size: height and width of the decoded images, in pixels.
        source: location of the images, for error messages.
        grey: whether to convert colour images to greyscale. If False and any image is coloured,
            all images are decoded as RGB.

    Returns:
        Greyscale images with bright ink on dark background, or RGB images of unchanged polarity.

    Raises:
        ValueError: if a class has no readable image, or the machine has less memory than is needed:
            3 bytes per pixel and channel, for the images one by one, together and split.
    """
    decoded: dict[str, tuple[np.ndarray, int]] = {}
    unreadable: list[str] = []
    channels = 1
    labels_by_name = {name: label for label, name in enumerate(class_names)} | {UNLABELLED: -1}
    for image in tqdm(images, desc="preparing", unit=" images", disable=None):
        # The number of images in an archive isn't known before its end.
        count = operator.length_hint(images, len(decoded) + 1)
        require_memory(
            3 * count * size**2 * channels,
            f"{source}: decoding {count:,} images of {size:,} x {size:,} pixels",
        )
        try:
            pixels = decode_image(image.file, size, grey=grey)
        except UnreadableImageError as error:
            name = image.file if isinstance(image.file, Path) else image.path
            unreadable.append(escape(f"{name} ({error})"))
        else:
            decoded[image.path] = pixels, labels_by_name[image.class_name]
            channels = max(channels, pixels.shape[-1])
    paths = sorted(decoded)
    labels = np.array([decoded[path][1] for path in paths], np.int32)
    listed = _abbreviate(unreadable)
    for label, name in enumerate(class_names):
        if label not in labels:
            reason = f"; unreadable: {listed}" if unreadable else ""
            raise ValueError(f"{source}: class {name} has no readable image{reason}")
    notes = []
    if unreadable:
        total = len(unreadable) + len(paths)
        notes.append(f"skipped {len(unreadable)} of {total} images as unreadable: {listed}")
    arrays = [decoded[path][0] for path in paths]
    coloured = sum(pixels.shape[-1] == 3 for pixels in arrays)
    if coloured:
        notes.append(
            f"{coloured} of {len(arrays)} images are coloured; all are loaded as RGB, without "
            "polarity normalization"
        )
        arrays = [np.broadcast_to(pixels, (size, size, 3)) for pixels in arrays]
    else:
        arrays = [normalize_polarity(pixels) for pixels in arrays]
    return DecodedImages(paths, np.stack(arrays), labels, tuple(notes))


def decode_image(file: Path | bytes, size: int, *, grey: bool = False) -> np.ndarray:
    """Decodes an image, pads it to a square and resizes it as :func:`resize_to_square`.

    Transparent pixels become white. The EXIF orientation is applied.

    Args:
        file: path of the file, or its content.
        size: height and width of the result, in pixels.
        grey: whether to convert colour images to greyscale.

    Returns:
        uint8, (size, size, 3) if the image is coloured and ``grey`` is False, else
        (size, size, 1).

    Raises:
        UnreadableImageError: if the file can't be read or decoded, isn't a regular one, or its
            image is large enough to be a decompression bomb, as it is or padded to a square.
    """
    try:
        if isinstance(file, Path) and file.exists() and not file.is_file():
            raise UnreadableImageError("not a regular file")  # reading a FIFO or device may hang
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = _open_image(file if isinstance(file, Path) else io.BytesIO(file))
    except UnreadableImageError:
        raise
    except OSError as error:
        raise UnreadableImageError(error.strerror or "not an image that Pillow can read") from error
    except Exception as error:  # Pillow's decoders raise arbitrary exceptions on damaged files.
        raise UnreadableImageError(str(error)) from error
    if image.mode == "RGB" and (grey or _is_grey(image)):
        image = image.convert("L")
    return resize_to_square(image, size)


def resize_to_square(image: Image.Image, size: int) -> np.ndarray:
    """Pads an image to a square with the median of its border, and resizes it.

    Resizing is bilinear, antialiased on downscaling.

    Args:
        image: of mode L or RGB.
        size: height and width of the result, in pixels.

    Returns:
        uint8, (size, size, 1), or (size, size, 3) if it is coloured.
    """
    if image.width != image.height:
        image = Image.fromarray(pad_to_square(np.asarray(image)))
    if image.width != size:
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.atleast_3d(np.asarray(image))


def normalize_polarity(image: np.ndarray) -> np.ndarray:
    """Inverts a greyscale image if its ink is darker than its background.

    The sign of the third moment about the border's median decides: pixels that differ most from
    the border, i.e. ink, dominate it, and symmetric noise of the background cancels.

    Args:
        image: uint8, (height, width, 1).
    """
    border = np.median(_border(image))
    moment = ((image.astype(np.float32) - border) ** 3).mean()
    if moment < 0 or (moment == 0 and border > 127):
        return 255 - image
    return image


def holdout_mask(
    paths: Sequence[str], labels: np.ndarray, classes: int, fraction: float = 0.1
) -> np.ndarray:
    """Selects a stratified test split by a hash of the paths.

    The split is deterministic and independent of the order of the images. Every class of two or
    more images contributes at least one; unlabelled images are never selected.

    Args:
        paths: relative paths of the images.
        labels: (images,); class indices, or -1 for unlabelled images.
        classes: number of classes.
        fraction: fraction of each class to select.

    Returns:
        bool, (images,); True for test images.
    """
    digests = [hashlib.sha256(path.encode(errors="surrogateescape")) for path in paths]
    order = np.array([digest.digest() for digest in digests], object).argsort()
    test = np.zeros(len(paths), bool)
    for label in range(classes):
        members = order[labels[order] == label]
        test[members[: max(round(fraction * len(members)), min(1, len(members) - 1))]] = True
    return test


def split_arrays(images: np.ndarray, labels: np.ndarray, test: np.ndarray) -> Arrays:
    """Splits images and labels into training and test arrays by a boolean mask of test examples."""
    return {
        "train_images": images[~test],
        "train_labels": labels[~test],
        "test_images": images[test],
        "test_labels": labels[test],
    }


def _open_image(file: Path | io.BytesIO) -> Image.Image:
    """Decodes an image to mode L or RGB and applies its EXIF orientation."""
    with Image.open(file) as image:
        if max(image.size) > _MAX_SIDE:
            raise UnreadableImageError(
                f"{image.width:,} x {image.height:,} pixels, at most {_MAX_SIDE:,} are supported"
            )
        image.load()
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L", "I", "F") else "RGB")


def pad_to_square(pixels: np.ndarray) -> np.ndarray:
    """Centres an image, (h, w) or (h, w, 3), in a square filled with the median of its border."""
    height, width, *channels = pixels.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.empty((side, side, *channels), np.uint8)
    square[:] = np.median(_border(np.atleast_3d(pixels)), axis=0)
    square[top : top + height, left : left + width] = pixels
    return square


def _is_grey(image: Image.Image) -> bool:
    """Whether the three channels are equal up to the rounding errors of JPEG."""
    pixels = np.asarray(image)
    return int((pixels.max(axis=-1) - pixels.min(axis=-1)).max()) <= 4


def _border(images: np.ndarray) -> np.ndarray:
    """Border pixels of images (..., h, w, channels), as (..., pixels, channels)."""
    sides = images[..., 0, :, :], images[..., -1, :, :], images[..., :, 0, :], images[..., :, -1, :]
    return np.concatenate(sides, axis=-2)


def _abbreviate(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + more

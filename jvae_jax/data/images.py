"""Decoding of image files to square uint8 arrays, with bright ink on dark background as MNIST's."""

import contextlib
import hashlib
import io
import itertools
import operator
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from jvae_jax import memory
from jvae_jax.data.cache import scratch_file
from jvae_jax.data.source import Arrays, PreparedData
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
        file: path of the file, its content, or greyscale pixels, uint8, (height, width).
    """

    class_name: str
    path: str
    file: Path | bytes | np.ndarray


class UnreadableImageError(ValueError):
    """An image can't be decoded."""


@dataclass(frozen=True, eq=False)
class DecodedImages:
    """Decoded images, sorted by path, in a temporary file.

    Attributes:
        paths: relative paths of the images.
        labels: int32, (images,); class indices, or -1 for unlabelled images.
        class_names: class names, in the order of the labels.
        notes: warnings about unreadable and coloured images.
        image_shape: height, width and channels.
        pixels: uint8, flat and memory-mapped; image i has its height x width values for each
            channel it was decoded with, from offsets[i] up to offsets[i] + lengths[i].
        offsets, lengths: int64, (images,).
    """

    paths: list[str]
    labels: np.ndarray
    class_names: tuple[str, ...]
    notes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    pixels: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray

    def images(self, chosen: np.ndarray) -> np.ndarray:
        """Images at these indices, uint8, (chosen, height, width, channels).

        Greyscale images with bright ink on dark background, or RGB images of unchanged polarity.
        They are memory-mapped if they are large.
        """
        height, width, channels = self.image_shape
        size = len(chosen) * height * width * channels
        starts = range(0, len(chosen), _at_a_time(height))
        parts = (self._part(chosen[start : start + starts.step]) for start in starts)
        if size <= memory.LARGE_BYTES:
            memory.require_memory(2 * size, f"{len(chosen):,} images of {self.image_shape}")
            return np.concatenate([np.empty((0, *self.image_shape), np.uint8), *parts])
        with scratch_file() as file:
            for part in parts:
                file.write(part.data)
            file.flush()
            return np.memmap(file, np.uint8, "r", shape=(len(chosen), *self.image_shape))

    def split(self, test: np.ndarray | None = None) -> PreparedData:
        """Splits the images by a boolean mask of test examples; default: :func:`holdout_mask`."""
        if test is None:
            test = holdout_mask(self.paths, self.labels, len(self.class_names))
        arrays = {
            "train_images": self.images(np.flatnonzero(~test)),
            "train_labels": self.labels[~test],
            "test_images": self.images(np.flatnonzero(test)),
            "test_labels": self.labels[test],
        }
        return PreparedData(arrays, self.notes, self.class_names)

    def _part(self, chosen: np.ndarray) -> np.ndarray:
        height, width, channels = self.image_shape
        images = np.empty((len(chosen), *self.image_shape), np.uint8)
        for image, index in zip(images, chosen, strict=True):
            start, length = self.offsets[index], self.lengths[index]
            image[:] = self.pixels[start : start + length].reshape(height, width, -1)
        return normalize_polarity(images) if channels == 1 else images


def decode_images(
    images: Iterable[EncodedImage],
    class_names: Sequence[str] | None,
    size: int,
    *,
    source: str,
    grey: bool = False,
) -> DecodedImages:
    """Decodes images in as many threads as there are cores; unreadable ones are skipped and
    reported in the notes.

    The pixels are written to a temporary file as they come, so memory doesn't grow with the number
    of images, but for their paths. Shows a progress bar if stderr is a terminal.

    Args:
        images: encoded images, in any order.
        class_names: class names, in the order of the labels; None for those of the images, sorted.
        size: height and width of the decoded images, in pixels.
        source: location of the images, for error messages.
        grey: whether to convert colour images to greyscale. If False and any image is coloured,
            all images are decoded as RGB.

    Raises:
        ValueError: if a class has no readable image, or the machine has less memory than the images
            that are decoded at a time need.
        OSError: if the temporary file can't be written.
    """
    at_a_time = _at_a_time(size)
    memory.require_memory(
        6 * at_a_time * size**2, f"{source}: decoding images of {size:,} x {size:,} pixels"
    )
    decoded: dict[str, tuple[str, int, int]] = {}
    names: dict[str, None] = {}  # an ordered set
    unreadable: list[str] = []
    coloured = end = 0
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(scratch_file())
        stack.enter_context(_raising_decompression_bombs())
        pool = stack.enter_context(ThreadPoolExecutor(os.cpu_count()))
        total = operator.length_hint(images) or None
        bar = stack.enter_context(tqdm(desc="preparing", total=total, unit=" images", disable=None))
        remaining = iter(images)
        while chunk := list(itertools.islice(remaining, at_a_time)):
            results = pool.map(lambda image: _try_decode(image, size, grey=grey), chunk)
            for image, pixels in zip(chunk, results, strict=True):
                bar.update()
                names[image.class_name] = None
                if isinstance(pixels, str):
                    unreadable.append(pixels)
                    continue
                file.write(pixels.data)
                decoded[image.path] = image.class_name, end, pixels.size
                end += pixels.size
                coloured += pixels.shape[-1] == 3
        file.flush()
        mapped = np.memmap(file, np.uint8, "r") if end else np.empty(0, np.uint8)
    if class_names is None:
        class_names = sorted(names)
    labels_by_name = {name: label for label, name in enumerate(class_names)} | {UNLABELLED: -1}
    paths = sorted(decoded)
    labels = np.array([labels_by_name[decoded[path][0]] for path in paths], np.int32)
    listed = _abbreviate(unreadable)
    counts = np.bincount(labels[labels >= 0], minlength=len(class_names))
    for label in np.flatnonzero(counts == 0).tolist():
        reason = f"; unreadable: {listed}" if unreadable else ""
        raise ValueError(f"{source}: class {class_names[label]} has no readable image{reason}")
    notes = []
    if unreadable:
        total = len(unreadable) + len(paths)
        notes.append(f"skipped {len(unreadable)} of {total} images as unreadable: {listed}")
    if coloured:
        notes.append(
            f"{coloured} of {len(paths)} images are coloured; all are loaded as RGB, without "
            "polarity normalization"
        )
    return DecodedImages(
        paths,
        labels,
        tuple(class_names),
        tuple(notes),
        (size, size, 3 if coloured else 1),
        mapped,
        *np.array([decoded[path][1:] for path in paths], np.int64).reshape(-1, 2).T,
    )


def _at_a_time(size: int) -> int:
    """Images of size x size that are decoded at a time: about 64 MiB in colour."""
    return max(1, min(1024, (1 << 26) // (3 * size**2)))


def _try_decode(image: EncodedImage, size: int, *, grey: bool) -> np.ndarray | str:
    """Decodes an image; if it is unreadable, returns its name and the reason."""
    if isinstance(image.file, np.ndarray):
        return resize_to_square(Image.fromarray(image.file), size)
    try:
        return _decode(image.file, size, grey=grey)
    except UnreadableImageError as error:
        name = image.file if isinstance(image.file, Path) else image.path
        return escape(f"{name} ({error})")


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
    with _raising_decompression_bombs():
        return _decode(file, size, grey=grey)


@contextlib.contextmanager
def _raising_decompression_bombs() -> Iterator[None]:
    """Raises an exception where Pillow warns. The filter is the process's: threads share it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _decode(file: Path | bytes, size: int, *, grey: bool) -> np.ndarray:
    try:
        if isinstance(file, Path) and file.exists() and not file.is_file():
            raise UnreadableImageError("not a regular file")  # reading a FIFO or device may hang
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


def normalize_polarity(images: np.ndarray) -> np.ndarray:
    """Inverts greyscale images whose ink is darker than their background.

    The sign of the third moment about the border's median decides: pixels that differ most from
    the border, i.e. ink, dominate it, and symmetric noise of the background cancels.

    Args:
        images: uint8, (..., height, width, 1).
    """
    border = np.median(_border(images)[..., 0], axis=-1)[..., None, None, None]
    moment = ((images.astype(np.float32) - border) ** 3).mean(axis=(-3, -2, -1), keepdims=True)
    is_dark = (moment < 0) | ((moment == 0) & (border > 127))
    return np.where(is_dark, 255 - images, images)


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

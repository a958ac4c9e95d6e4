"""Decoding of image files to square uint8 arrays, with bright ink on dark background as MNIST's."""

import contextlib
import hashlib
import io
import itertools
import operator
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from jvae_jax import memory
from jvae_jax.data import cache
from jvae_jax.data.source import Arrays
from jvae_jax.files import naming
from jvae_jax.messages import escape

UNLABELLED = "unlabelled"
"""Name of the pseudo-class of unlabelled images; their label is -1."""

_MAX_SIDE = 1 << 14
"""Largest height or width of an image, in pixels: padded to a square, it takes up to 0.8 GB."""
_MAX_THREADS = 8
"""Threads that decode, each an image of any size."""
_BYTES_PER_PIXEL = 32
"""Memory of decoding, which holds float64 values while polarity is normalized."""
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
    """Decoded images, sorted by path.

    Attributes:
        paths: relative paths of the images.
        labels: int32, (images,); class indices, or -1 for unlabelled images.
        class_names: class names, in the order of the labels.
        notes: warnings about unreadable and coloured images.
        unreadable: number of images that were skipped.
        image_shape: height, width and channels.
        pixels: uint8, flat; memory-mapped if they are large. Image i is at offsets[i], with
            lengths[i] values: height x width for each channel that it was decoded with.
        offsets, lengths: int64, (images,).
    """

    paths: list[str]
    labels: np.ndarray
    class_names: tuple[str, ...]
    notes: tuple[str, ...]
    unreadable: int
    image_shape: tuple[int, int, int]
    pixels: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray

    def images(self, chosen: np.ndarray) -> np.ndarray:
        """Images that a mask, (images,), selects, uint8, (chosen, height, width, channels).

        Greyscale images with bright ink on dark background, or RGB images of unchanged polarity.

        Raises:
            OSError: if they are large and the temporary file can't be written.
        """
        indices = np.flatnonzero(chosen)
        starts = range(0, len(indices), _at_a_time(self.image_shape[0]))
        with contextlib.closing(_Spool()) as spool:
            for start in starts:
                spool.write(self._part(indices[start : start + starts.step]))
            return spool.read().reshape(len(indices), *self.image_shape)

    def split(self, test: np.ndarray | None = None) -> Arrays:
        """Splits the images by a mask of test examples; default: :func:`holdout_mask`."""
        if test is None:
            test = holdout_mask(self.paths, self.labels, len(self.class_names))
        return split_arrays(self.images, self.labels, test)

    def _part(self, indices: np.ndarray) -> np.ndarray:
        height, width, channels = self.image_shape
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        for image, index in zip(images, indices, strict=True):
            start, length = self.offsets[index], self.lengths[index]
            image[:] = self.pixels[start : start + length].reshape(height, width, -1)
        return normalize_polarity(images) if channels == 1 else images


class _Spool:
    """Bytes that are written once and then read as an array: in memory, or mapped from a file.

    Above ``memory.LARGE_BYTES`` they are in an unnamed temporary file in the cache directory, or
    where the system keeps temporary files if that directory can't be written.
    """

    def __init__(self) -> None:
        self.size = 0
        self._directory = Path(tempfile.gettempdir())
        with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: no home folder
            directory = cache.CACHE_DIR.expanduser()
            directory.mkdir(parents=True, exist_ok=True)
            if os.access(directory, os.W_OK):
                self._directory = directory
        self._file = tempfile.SpooledTemporaryFile(  # noqa: SIM115  (close() closes it)
            memory.LARGE_BYTES, dir=str(self._directory)
        )

    def require_room(self, size: int, purpose: str) -> None:
        """Raises ValueError if there is no memory, or disk, for this many bytes and their copies.

        They are written here, of which a part may be done, split, and cached.
        """
        if size <= memory.LARGE_BYTES:
            memory.require_memory(4 * size, purpose)
            return
        on_disk = self.size if self.size > memory.LARGE_BYTES else 0
        free = shutil.disk_usage(self._directory).free + on_disk
        if 3 * size > free:
            raise ValueError(
                f"{purpose} needs about {3 * size / 2**30:,.1f} GiB of disk in {self._directory}, "
                f"more than the {free / 2**30:,.1f} GiB that are free there"
            )

    def write(self, array: np.ndarray) -> None:
        """Appends an array of uint8."""
        with naming(self._directory):
            self._file.write(array.data)
        self.size += array.size

    def read(self) -> np.ndarray:
        """All that was written, uint8, flat."""
        with naming(self._directory):
            self._file.seek(0)  # writes what is buffered
            if self.size <= memory.LARGE_BYTES:
                return np.frombuffer(bytearray(self._file.read()), np.uint8)
            self._file.rollover()
        return np.memmap(self._file, np.uint8, "r")

    def close(self) -> None:
        """Frees memory and disk, of which a mapped array keeps what it needs."""
        with contextlib.suppress(OSError):  # of a full disk, which was reported
            self._file.close()


def decode_images(
    images: Iterable[EncodedImage],
    class_names: Sequence[str] | None,
    size: int,
    *,
    source: str,
    count: int | None = None,
    grey: bool = False,
) -> DecodedImages:
    """Decodes images in several threads; unreadable ones are skipped and reported in the notes.

    Above ``memory.LARGE_BYTES``, the pixels are on disk, so memory doesn't grow with the number of
    images, but for their paths. Room for colour is required from the first coloured image on.
    Shows a progress bar if stderr is a terminal.

    Args:
        images: encoded images, in any order.
        class_names: class names, in the order of the labels; None for those of the images, sorted.
        size: height and width of the decoded images, in pixels.
        source: location of the images, for error messages.
        count: number of images, for the progress bar and to refuse what exceeds the disk before
            anything is decoded; by default that of ``images``, if it has a length.
        grey: whether to convert colour images to greyscale. If False and any image is coloured,
            all images are decoded as RGB.

    Raises:
        ValueError: if a class has no readable image, or the images exceed the machine's memory or,
            above ``memory.LARGE_BYTES``, its free disk.
        OSError: if the temporary file can't be written.
    """
    at_a_time = _at_a_time(size)
    purpose = f"{source}: decoding images of {size:,} x {size:,} pixels"
    memory.require_memory(_BYTES_PER_PIXEL * at_a_time * size**2, purpose)
    decoded: dict[str, tuple[str, int, int]] = {}
    names: dict[str, None] = {}  # an ordered set
    unreadable: list[str] = []
    channels = 1
    total = operator.length_hint(images) if count is None else count
    with contextlib.ExitStack() as stack:
        spool = stack.enter_context(contextlib.closing(_Spool()))
        pool = stack.enter_context(ThreadPoolExecutor(min(os.cpu_count() or 1, _MAX_THREADS)))
        stack.callback(pool.shutdown, cancel_futures=True)  # an error doesn't wait for the chunk
        bar = stack.enter_context(
            tqdm(desc="preparing", total=total or None, unit=" images", disable=None)
        )

        def require_room(known: int) -> None:
            spool.require_room(max(total, known) * channels * size**2, purpose)

        remaining = iter(images)
        while chunk := list(itertools.islice(remaining, at_a_time)):
            require_room(len(decoded) + len(chunk))
            results = pool.map(lambda image: _try_decode(image, size, grey=grey), chunk)
            for image, pixels in zip(chunk, results, strict=True):
                bar.update()
                names[image.class_name] = None
                if isinstance(pixels, str):
                    unreadable.append(pixels)
                else:
                    channels = max(channels, pixels.size // size**2)
                    decoded[image.path] = image.class_name, spool.size, pixels.size
                    spool.write(pixels)
        require_room(len(decoded))
        pixels = spool.read()
    if class_names is None:
        class_names = sorted(names)
    labels_by_name = {name: label for label, name in enumerate(class_names)} | {UNLABELLED: -1}
    paths = sorted(decoded)
    labels = np.array([labels_by_name[decoded[path][0]] for path in paths], np.int32)
    offsets, lengths = np.array([decoded[path][1:] for path in paths], np.int64).reshape(-1, 2).T
    listed = _abbreviate(unreadable)
    counts = np.bincount(labels[labels >= 0], minlength=len(class_names))
    for label in np.flatnonzero(counts == 0).tolist():
        reason = f"; unreadable: {listed}" if unreadable else ""
        raise ValueError(f"{source}: class {class_names[label]} has no readable image{reason}")
    notes = []
    if unreadable:
        count = len(unreadable) + len(paths)
        notes.append(f"skipped {len(unreadable)} of {count} images as unreadable: {listed}")
    coloured = int((lengths > size**2).sum())
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
        len(unreadable),
        (size, size, 3 if coloured else 1),
        pixels,
        offsets,
        lengths,
    )


def _at_a_time(size: int) -> int:
    """Images of size x size that are decoded at a time: about 16 MiB in colour."""
    return max(1, min(1024, (1 << 24) // (3 * size**2)))


def _try_decode(image: EncodedImage, size: int, *, grey: bool) -> np.ndarray | str:
    """Decodes an image; if it is unreadable, returns its name and the reason."""
    if isinstance(image.file, np.ndarray):
        return resize_to_square(Image.fromarray(image.file), size)
    try:
        return decode_image(image.file, size, grey=grey)
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
    try:
        if isinstance(file, Path) and file.exists() and not file.is_file():
            raise UnreadableImageError("not a regular file")  # reading a FIFO or device may hang
        image = _open_image(file if isinstance(file, Path) else io.BytesIO(file))
    except (UnreadableImageError, MemoryError):
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


def split_arrays(
    images: Callable[[np.ndarray], np.ndarray], labels: np.ndarray, test: np.ndarray
) -> Arrays:
    """Splits images and labels into training and test arrays by a mask of test examples.

    Args:
        images: returns the images that a mask selects.
        labels: labels of all images.
        test: bool, (images,).
    """
    return {
        "train_images": images(~test),
        "train_labels": labels[~test],
        "test_images": images(test),
        "test_labels": labels[test],
    }


def _open_image(file: Path | io.BytesIO) -> Image.Image:
    """Decodes an image to mode L or RGB and applies its EXIF orientation."""
    with Image.open(file) as image:
        if max(image.size) > _MAX_SIDE:
            raise UnreadableImageError(
                f"{image.width:,} x {image.height:,} pixels, at most {_MAX_SIDE:,} are supported"
            )
        limit = Image.MAX_IMAGE_PIXELS  # Pillow only warns of it, and refuses twice as many
        if limit is not None and image.width * image.height > limit:
            raise UnreadableImageError(
                f"{image.width * image.height} pixels, more than Pillow's limit of {limit}"
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

"""Datasets in .npz files."""

import logging
from pathlib import Path

import numpy as np

from jvae_jax.data.archives import list_arrays, read_arrays
from jvae_jax.data.dataset import Dataset, check_class_names
from jvae_jax.data.images import holdout_mask, split_arrays
from jvae_jax.memory import require_memory
from jvae_jax.validation import as_class_indices, as_pixels

logger = logging.getLogger(__name__)

_SPLIT_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
_UNSPLIT_ARRAYS = ("images", "labels")
_MAX_CLASSES = 100_000
_EXPECTED = (
    f"expected {', '.join(_SPLIT_ARRAYS)}, or {' and '.join(_UNSPLIT_ARRAYS)}, and optionally "
    "class_names"
)


def load(path: Path) -> Dataset:
    """Loads a dataset from an .npz file.

    The file contains either ``train_images``, ``train_labels``, ``test_images`` and
    ``test_labels``, or ``images`` and ``labels``. In the latter case, 10% of each class are held
    out for testing, by a deterministic split. ``class_names`` is optional and defaults to the class
    indices. Square images of more than ``memory.LARGE_BYTES`` are memory-mapped if they are split
    and not compressed.

    Images are uint8, (n, height, width) or (n, height, width, channels), with bright ink on dark
    background; they are padded to squares. Labels are class indices from 0, or -1 for unlabelled
    images.

    Args:
        path: path of the file.

    Raises:
        ValueError: if the file is damaged, lacks an array, or an array has a wrong shape, dtype or
            range.
        OSError: if the file can't be read.
    """
    arrays = _read(path)
    names = [name for name in arrays if name != "class_names"]
    images = {name: _square_images(arrays[name], f"{name} of {path}") for name in names[::2]}
    labels = {}
    for name, labelled_images in zip(names[1::2], images.values(), strict=True):
        labels[name] = _checked_labels(arrays[name], len(labelled_images), f"{name} of {path}")
    largest = max(array.max(initial=-1) for array in labels.values())
    if "class_names" in arrays:
        class_names = _text(arrays["class_names"], f"class_names of {path}")
    else:
        class_names = tuple(map(str, range(largest + 1)))
    if len(class_names) < max(2, largest + 1):
        raise ValueError(
            f"{path} has {len(class_names)} classes and labels up to {largest}; expected at least "
            "two classes and a name for each label"
        )
    split = images | labels
    if "images" in arrays:
        indices = [str(index) for index in range(len(labels["labels"]))]
        test = holdout_mask(indices, labels["labels"], len(class_names))
        size = images["images"].nbytes
        require_memory(2 * size, f"splitting the {size:,} bytes of images of {path}")
        split = split_arrays(images["images"].__getitem__, labels["labels"], test)
    return Dataset(name=str(path.absolute()), class_names=class_names, **split)


def _read(path: Path) -> dict[str, np.ndarray]:
    """Reads images and labels, in the order of their names above, and class names if present."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a regular file; {_EXPECTED}")
    with path.open("rb") as file:
        try:
            found = list_arrays(file)
            names = _SPLIT_ARRAYS if _SPLIT_ARRAYS[0] in found else _UNSPLIT_ARRAYS
            if missing := [name for name in names if name not in found]:
                listed = ", ".join(found).encode("unicode_escape").decode()
                raise ValueError(f"it has no {missing[0]}, only {listed}")
            arrays = read_arrays(file, [*names, *({"class_names"} & set(found))])
        except ValueError as error:
            hint = "; all images must have one size" if "Object arrays" in str(error) else ""
            raise ValueError(f"{path} can't be read: {error}{hint}; {_EXPECTED}") from error
    if ignored := [name for name in found if name not in arrays]:
        logger.warning("%s contains more arrays, which are ignored: %s", path, ignored)
    return arrays


def _square_images(images: np.ndarray, name: str) -> np.ndarray:
    if images.ndim == 3:
        images = images[..., None]
    as_pixels(images, name=name)
    if images.shape[-1] not in (1, 3):
        raise ValueError(f"{name} must have 1 or 3 channels, got {images.shape[-1]}")
    side = max(images.shape[1:3])
    if 0 in images.shape:
        raise ValueError(f"{name} must not be empty, got shape {images.shape}")
    if images.shape[1] == images.shape[2]:
        return images  # not copied: it may be memory-mapped
    require_memory(
        3 * len(images) * side**2 * images.shape[-1],
        f"padding {name} to {side:,} x {side:,} pixels",
    )
    padding = [side - length for length in images.shape[1:3]]
    return np.pad(images, [(0, 0), *((n // 2, n - n // 2) for n in padding), (0, 0)])


def _checked_labels(labels: np.ndarray, examples: int, name: str) -> np.ndarray:
    classes = 0
    if labels.dtype.kind in "iu":
        classes = int(labels.max(initial=0)) + 1
        if classes > _MAX_CLASSES:
            raise ValueError(f"{name} must be below {_MAX_CLASSES:,}, got {classes - 1}")
        labels = labels.astype(np.int64)  # int32 would wrap what is far below -1
    as_class_indices(labels, examples, classes=classes, unlabelled=True, name=name)
    return labels.astype(np.int32)


def _text(names: np.ndarray, name: str) -> tuple[str, ...]:
    if names.ndim != 1 or names.dtype.kind != "U":
        raise ValueError(
            f"{name} must be text of shape (classes,), got {names.dtype} of shape {names.shape}"
        )
    return check_class_names(names.tolist(), name)

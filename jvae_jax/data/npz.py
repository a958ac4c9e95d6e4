"""Arrays of one's own: PATH.npz."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from jvae_jax.data.dataset import Dataset, check_images, check_labels
from jvae_jax.data.images import divided, held_out

_SPLIT = ("train_images", "train_labels", "test_images", "test_labels")
_WHOLE = ("images", "labels")
_EXPECTED = f"it takes {', '.join(_SPLIT)}, or {' and '.join(_WHOLE)}, and maybe class_names"


def load(path: Path) -> Dataset:
    """The arrays of an .npz file.

    They are ``train_images``, ``train_labels``, ``test_images`` and ``test_labels``; or ``images``
    and ``labels``, of which a tenth of each class is held out, always the same. ``class_names`` may
    be there too; else classes are numbers.

    Images are uint8, (n, height, width) or (n, height, width, channels), with ink bright on dark;
    they are padded to squares. Labels are integers from 0; -1 is unlabelled.

    Raises:
        ValueError: if the file is damaged, lacks an array, or an array isn't what it should be.
        OSError: if it can't be read.
    """
    arrays = _read(path)
    names = _SPLIT if _SPLIT[0] in arrays else _WHOLE
    if missing := [name for name in names if name not in arrays]:
        raise ValueError(f"{path} has no {missing[0]}, only {', '.join(arrays)}; {_EXPECTED}")
    images = {name: _squares(arrays[name], f"{name} of {path}") for name in names[::2]}
    labels = {}
    for name, of in zip(names[1::2], images.values(), strict=True):
        labels[name] = _labels(arrays[name], len(of), f"{name} of {path}")
    largest = max(array.max(initial=-1) for array in labels.values())
    class_names = list(arrays.get("class_names", range(largest + 1)))
    if len(class_names) < max(2, largest + 1):
        raise ValueError(
            f"{path} has {len(class_names)} classes, and labels up to {largest}; it takes a name "
            "for each label, and two classes or more"
        )
    split = images | labels
    if names == _WHOLE:
        places = [str(index) for index in range(len(labels["labels"]))]
        test = held_out(places, labels["labels"], len(class_names))
        split = divided(images["images"], labels["labels"], test)
    return Dataset(name=str(path.absolute()), class_names=tuple(map(str, class_names)), **split)


def _read(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file):
                file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
        except (EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            hint = "; images whose sizes differ make such" if "Object arrays" in str(error) else ""
            raise ValueError(f"{path} can't be read: {error}{hint}; {_EXPECTED}") from error


def _squares(images: np.ndarray, what: str) -> np.ndarray:
    if images.ndim == 3:
        images = images[..., None]
    check_images(images, what)
    if images.shape[-1] not in (1, 3):
        raise ValueError(f"{what} must have 1 or 3 channels, got {images.shape[-1]}")
    side = max(images.shape[1:3])
    missing = [side - length for length in images.shape[1:3]]
    return np.pad(images, [(0, 0), *((n // 2, n - n // 2) for n in missing), (0, 0)])


def _labels(labels: np.ndarray, examples: int, what: str) -> np.ndarray:
    if labels.dtype.kind in "iu":
        labels = labels.astype(np.int32)
    classes = int(labels.max(initial=0)) + 1 if labels.dtype.kind == "i" else 0
    check_labels(labels, examples=examples, classes=classes, what=what)
    return labels

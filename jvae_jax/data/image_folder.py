"""Image folders: one sub-folder of images for each class."""

import contextlib
import hashlib
import logging
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jvae_jax.data import cache
from jvae_jax.data.dataset import Dataset, check_class_names
from jvae_jax.data.images import UNLABELLED, EncodedImage, decode_images
from jvae_jax.data.source import PreparedData, fingerprint
from jvae_jax.files import lock_file

logger = logging.getLogger(__name__)


def load(directory: Path, image_size: int) -> Dataset:
    """Loads a folder of images, with a sub-folder for each class.

    Images in a sub-folder ``unlabelled`` get the label -1. If there is a sub-folder ``train``, the
    class folders are those in ``train`` and, if present, ``test``. Without ``test``, 10% of each
    class are held out for testing, by a hash of the file paths. Unreadable images are skipped and
    reported.

    Decoded images are cached in the user's cache directory; nothing is written into ``directory``.

    Args:
        directory: path of the folder.
        image_size: height and width to resize to, in pixels.

    Raises:
        ValueError: if the folder has another layout, a class has no readable image, or the images
            exceed the machine's memory or, above ``memory.LARGE_BYTES``, its free disk.
        OSError: if a folder can't be read, or images above ``memory.LARGE_BYTES`` can't be written.
    """
    directory = Path(os.path.abspath(directory))  # noqa: PTH100  (resolve() fails on link cycles)
    train, test = _find_splits(directory)
    class_names = tuple(name for name in train if name != UNLABELLED)
    if len(class_names) < 2:
        classes = f"only one class, {class_names[0]}" if class_names else "no class"
        raise ValueError(
            f"{directory} contains {classes}; expected two or more, each a sub-folder of images"
        )
    images = [
        EncodedImage(name, _normalize(file.relative_to(directory).as_posix()), file)
        for split in (train, test)
        for name, files in split.items()
        for file in files
    ]
    origin = fingerprint(
        file for split in (train, test) for files in split.values() for file in files
    )
    key = f"{directory}\0{image_size}".encode(errors="surrogateescape")
    path = cache.CACHE_DIR / "folders" / f"{hashlib.sha256(key).hexdigest()[:12]}.npz"
    data = _read_or_prepare(
        path,
        origin,
        lambda: _prepare(images, class_names, image_size, directory, has_test=bool(test)),
    )
    for note in data.notes:
        logger.warning("%s", note)
    return Dataset(name="folder", class_names=class_names, **data.arrays)


def _read_or_prepare(path: Path, origin: str, prepare: Callable[[], PreparedData]) -> PreparedData:
    """Reads the cache file ``path``, or prepares the data and writes it, if it can be written."""
    with contextlib.ExitStack() as stack:
        try:
            path = path.expanduser()
            if data := cache.read(path, origin):
                return data
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock_file(path.with_suffix(".lock")))
        except (OSError, RuntimeError) as error:  # RuntimeError: no home folder
            logger.warning("decoded images are not cached: %s", error)
            return prepare()
        # Another process may have prepared the data while this one waited for the lock.
        if data := cache.read(path, origin):
            return data
        data = prepare()
        try:
            return cache.write(path, data, origin)
        except OSError as error:
            logger.warning("decoded images are not cached: %s", error)
            return data


def _prepare(
    images: list[EncodedImage],
    class_names: tuple[str, ...],
    image_size: int,
    directory: Path,
    *,
    has_test: bool,
) -> PreparedData:
    decoded = decode_images(images, class_names, image_size, source=str(directory))
    test = np.array([path.startswith("test/") for path in decoded.paths]) if has_test else None
    return PreparedData(decoded.split(test), decoded.notes)


def _find_splits(directory: Path) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Lists the files of each class for training and for testing.

    The latter is empty if there is no ``test`` folder.
    """
    names = {folder.name for folder in _list_folders(directory)}
    if "train" not in names:
        return _list_classes(directory), {}
    if stray := sorted(names - {"train", "test", UNLABELLED}):
        raise ValueError(
            f"{directory} contains a folder train, so {stray[0]} can't be a class beside it"
        )
    train = _list_classes(directory / "train")
    if UNLABELLED in names:
        train.setdefault(UNLABELLED, []).extend(_list_files(directory / UNLABELLED))
    test = _list_classes(directory / "test") if "test" in names else {}
    if unknown := sorted(test.keys() - train.keys()):
        raise ValueError(f"{directory / 'test' / unknown[0]} is a class that train lacks")
    return train, test


def _list_classes(directory: Path) -> dict[str, list[Path]]:
    return {_normalize(folder.name): _list_files(folder) for folder in _list_folders(directory)}


def _list_folders(directory: Path) -> list[Path]:
    """Lists the sub-folders by name, without hidden ones."""
    if not directory.is_dir():
        raise ValueError(f"there is no folder {directory}; set --data_dir to the image folder")
    folders = [path for path in directory.iterdir() if path.is_dir() and path.name[0] != "."]
    check_class_names(
        [_normalize(folder.name) for folder in folders], f"names of folders in {directory}"
    )
    # Windows compares paths without regard to case, and a Mac may store names decomposed.
    return sorted(folders, key=lambda folder: _normalize(folder.name))


def _list_files(directory: Path) -> list[Path]:
    """Lists the files of a class folder by name, without hidden ones."""
    files = sorted(path for path in directory.iterdir() if path.name[0] != ".")
    for path in files:
        if path.is_dir():
            raise ValueError(
                f"{path} is a folder within a class; expected only images in {directory}"
            )
    if not files:
        raise ValueError(f"{directory} contains no images; add some or remove the folder")
    return files


def _normalize(name: str) -> str:
    """Composes characters, which file systems store composed or decomposed.

    Names are UTF-8, whatever the locale says, as in ``LC_ALL=C PYTHONUTF8=0``.
    """
    name = os.fsencode(name).decode(errors="surrogateescape")
    return unicodedata.normalize("NFC", name)

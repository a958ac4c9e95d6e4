"""Pictures of one's own: a folder with a sub-folder for each class."""

import hashlib
import os
import unicodedata
from pathlib import Path

import numpy as np

from jvae_jax.data import cache
from jvae_jax.data.dataset import Dataset
from jvae_jax.data.images import UNLABELLED, Picture, decode_all, divided, held_out
from jvae_jax.data.source import Say, fingerprint


def load(directory: Path, image_size: int, *, say: Say) -> Dataset:
    """The pictures of a folder; ``unlabelled`` is no class, and its pictures have the label -1.

    If it has a folder ``train``, the classes' folders are in there, and in ``test``, if there is
    one. Without ``test``, a tenth of each class is held out, always the same.

    Nothing is written there: what is decoded is kept in the user's cache folder.

    Raises:
        ValueError: if it isn't such a folder, or a class has no picture that can be read.
        OSError: if it can't be read.
    """
    directory = Path(os.path.abspath(directory))  # noqa: PTH100  (resolve() fails on a loop)
    train, test = _splits(directory)
    class_names = tuple(name for name in train if name != UNLABELLED)
    if len(class_names) < 2:
        found = f"one class only, {class_names[0]}" if class_names else "no class"
        raise ValueError(
            f"{directory} holds {found}; it takes two or more, each a sub-folder of pictures"
        )
    pictures = [
        Picture(name, unicodedata.normalize("NFC", str(file.relative_to(directory))), file)
        for split in (train, test)
        for name, files in split.items()
        for file in files
    ]
    origin = fingerprint(
        file for split in (train, test) for files in split.values() for file in files
    )
    key = f"{directory}\0{image_size}".encode(errors="surrogateescape")
    kept = cache.HOME.expanduser() / "folders" / f"{hashlib.sha256(key).hexdigest()[:12]}.npz"
    entry = cache.read(kept, origin)
    if entry is None:
        entry = _prepared(pictures, class_names, image_size, directory, has_test=bool(test))
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            cache.write(kept, entry, origin)
        except OSError as error:
            say(f"what was prepared is not kept for the next start: {error}")
    for note in entry.notes:
        say(note)
    return Dataset(name="folder", class_names=class_names, **entry.arrays)


def _prepared(
    pictures: list[Picture],
    class_names: tuple[str, ...],
    image_size: int,
    directory: Path,
    *,
    has_test: bool,
) -> cache.Entry:
    notes: list[str] = []
    decoded = decode_all(pictures, class_names, image_size, where=str(directory), say=notes.append)
    if has_test:
        test = np.array([path.startswith(f"test{os.sep}") for path in decoded.paths])
    else:
        test = held_out(decoded.paths, decoded.labels, len(class_names))
    return cache.Entry(divided(decoded.images, decoded.labels, test), tuple(notes))


def _splits(directory: Path) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """The files of each class, for training and, where it has such a folder, for testing."""
    names = {folder.name for folder in _folders(directory)}
    if "train" not in names:
        return _classes(directory), {}
    if stray := sorted(names - {"train", "test", UNLABELLED}):
        raise ValueError(
            f"{directory} holds a folder train, so {stray[0]} can't be a class beside it"
        )
    train = _classes(directory / "train")
    if UNLABELLED in names:
        train.setdefault(UNLABELLED, []).extend(_files(directory / UNLABELLED))
    test = _classes(directory / "test") if "test" in names else {}
    if unknown := sorted(test.keys() - train.keys()):
        raise ValueError(f"{directory / 'test' / unknown[0]} is a class that train lacks")
    return train, test


def _classes(directory: Path) -> dict[str, list[Path]]:
    return {
        unicodedata.normalize("NFC", folder.name): _files(folder) for folder in _folders(directory)
    }


def _folders(directory: Path) -> list[Path]:
    """Its folders by name, without hidden ones."""
    if not directory.is_dir():
        raise ValueError(f"there is no folder {directory}; --data_dir names the one to train on")
    folders = [path for path in directory.iterdir() if path.is_dir() and path.name[0] != "."]
    for folder in folders:
        if not folder.name.isprintable():
            raise ValueError(f"{directory} holds a folder whose name isn't text: {folder.name!a}")
    return sorted(folders)


def _files(directory: Path) -> list[Path]:
    """The files of a class, without hidden ones."""
    files = sorted(path for path in directory.iterdir() if path.name[0] != ".")
    for path in files:
        if path.is_dir():
            raise ValueError(
                f"{path} is a folder within a class; pictures lie directly in {directory}"
            )
    if not files:
        raise ValueError(f"{directory} holds no pictures; put some there, or remove the folder")
    return files

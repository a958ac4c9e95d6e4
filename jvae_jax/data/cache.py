"""Arrays of a prepared data set, in a file that loads at once."""

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jvae_jax.data.source import Arrays
from jvae_jax.files import replacing

HOME = Path("~/.cache/jvae_jax")
"""Where what is prepared lies, if nothing else is said."""

_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


class Entry(NamedTuple):
    """What is kept of a data set.

    Attributes:
        arrays: as a Dataset has them.
        notes: sentences that preparing it gave rise to, to be said again whenever it is loaded.
    """

    arrays: Arrays
    notes: tuple[str, ...]


def read(path: Path, origin: str | None) -> Entry | None:
    """What is kept in a file, or None if it isn't whole or was made from another origin.

    Args:
        path: the file.
        origin: a fingerprint of what it must have been made from; None: of anything.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            if origin is not None and kept["origin"] != origin:
                return None
            notes = tuple(map(str, kept["notes"]))
            return Entry({name: kept[name] for name in _ARRAYS}, notes)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None


def write(path: Path, entry: Entry, origin: str | None) -> None:
    """Keeps an entry, whole or not at all.

    Raises:
        OSError: if it can't be written.
    """
    for leftover in path.parent.glob(f".{path.name}.*"):  # of a process that was killed
        leftover.unlink(missing_ok=True)
    with replacing(path) as file:
        np.savez(
            file,
            allow_pickle=False,
            origin=np.array(origin or ""),
            notes=np.array(entry.notes, str),
            **entry.arrays,
        )

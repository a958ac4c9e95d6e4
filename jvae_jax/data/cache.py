"""Cache of prepared datasets: one uncompressed .npz file each."""

from pathlib import Path

import numpy as np

from jvae_jax.data.archives import list_arrays, read_arrays
from jvae_jax.data.source import PreparedData
from jvae_jax.files import atomic_write

CACHE_DIR = Path("~/.cache/jvae_jax")
"""Default directory of downloads and prepared data."""

_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
_TEXTS = ("notes", "class_names")
"""Fields of ``PreparedData`` that are texts; files of earlier versions have no class names."""


def read(path: Path, origin: str | None) -> PreparedData | None:
    """Reads a cache file.

    Args:
        path: path of the file.
        origin: expected fingerprint of the source files; None accepts any.

    Returns:
        The prepared data, or None if the file is missing, damaged or of another origin.
    """
    try:
        with path.open("rb") as file:
            found = read_arrays(file, ("origin",))["origin"]
            if origin is not None and found != origin:
                return None
            texts = [name for name in _TEXTS if name in list_arrays(file)]
            contents = read_arrays(file, (*_ARRAYS, *texts))
    except (OSError, ValueError):
        return None
    return PreparedData(
        {name: contents[name] for name in _ARRAYS},
        **{name: tuple(map(str, contents[name])) for name in texts},
    )


def write(path: Path, data: PreparedData, origin: str | None) -> PreparedData:
    """Writes a cache file atomically.

    Args:
        path: path of the file.
        data: data to cache.
        origin: fingerprint of the source files, or None if checksums fix their content.

    Returns:
        The data; if they were mapped from temporary files, now from the cache file.

    Raises:
        OSError: if the file can't be written.
    """
    remove_leftovers(path)
    with atomic_write(path) as file:
        np.savez(
            file,
            allow_pickle=False,
            origin=np.array(origin or ""),
            **{name: np.array(getattr(data, name), str) for name in _TEXTS},
            **data.arrays,
        )
    is_mapped = any(isinstance(array, np.memmap) for array in data.arrays.values())
    return (read(path, origin) if is_mapped else None) or data


def remove_leftovers(path: Path) -> None:
    """Removes the temporary files of killed processes that wrote ``path``."""
    for leftover in path.parent.glob(f".{path.name}.*"):
        leftover.unlink(missing_ok=True)

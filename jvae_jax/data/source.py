"""The interface of datasets that are prepared once and then read from a cache."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

Arrays = dict[str, np.ndarray]
"""``train_images``, ``train_labels``, ``test_images`` and ``test_labels`` of a ``Dataset``."""


class PreparedData(NamedTuple):
    """Arrays of a dataset, with warnings about its preparation.

    Attributes:
        arrays: the arrays of a :class:`~jvae_jax.data.dataset.Dataset`.
        notes: warnings to log whenever the dataset is loaded, from the cache too.
        class_names: class names that only the files tell, or empty.
    """

    arrays: Arrays
    notes: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()


@runtime_checkable
class Source(Protocol):
    """Files of a released dataset, found in a folder or downloaded, and their decoder."""

    @property
    def name(self) -> str:
        """Name of the dataset, as passed to :func:`jvae_jax.data.load`."""
        ...

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Class names, in the order of the labels; None if only the files tell them."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images returned by :meth:`read`."""
        ...

    @property
    def has_checksums(self) -> bool:
        """Whether checksums fix the content of every file."""
        ...

    @property
    def homepage(self) -> str | None:
        """Page from which users must download the files themselves; None if ``urls`` do."""
        ...

    @property
    def urls(self) -> Mapping[str, Sequence[str]]:
        """Addresses of each file, by file name, in the order in which they are tried.

        Empty if there is a homepage instead.
        """
        ...

    def find(self, directory: Path) -> Mapping[str, Path] | None:
        """Finds the files in ``directory``.

        Returns:
            Paths by file name, or None if a file is missing.
        """
        ...

    def verify(self, name: str, path: Path) -> None:
        """Verifies a file by its checksum, if that is known.

        Args:
            name: name of the file.
            path: path of the file.

        Raises:
            ValueError: if it isn't the released one.
        """
        ...

    def read(self, paths: Mapping[str, Path]) -> PreparedData:
        """Reads and decodes the files.

        Args:
            paths: paths by file name.

        Raises:
            ValueError: if a file is damaged or isn't the released one.
        """
        ...


def fingerprint(paths: Iterable[Path]) -> str:
    """Hashes the path, size and modification time of files, without reading them."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            status = path.stat()
        except OSError:  # a dangling symbolic link
            status = path.lstat()
        entry = f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0"
        digest.update(entry.encode(errors="surrogateescape"))
    return digest.hexdigest()[:12]

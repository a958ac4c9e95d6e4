"""What a data set that is prepared once and kept has to say of itself."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

Say = Callable[[str], None]
"""Is told, in sentences, what happens."""
Arrays = dict[str, np.ndarray]
"""``train_images``, ``train_labels``, ``test_images``, ``test_labels``, as a Dataset has them."""


@runtime_checkable
class Source(Protocol):
    """Files that are found in a folder or downloaded, and how they become a data set."""

    @property
    def name(self) -> str:
        """What ``load`` knows it by."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """One for each class."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of what :meth:`read` returns."""
        ...

    @property
    def checked(self) -> bool:
        """Whether checksums make sure that its files always hold the same."""
        ...

    @property
    def urls(self) -> Mapping[str, str]:
        """Where to download each file. Whether the first answers tells if there is a network."""
        ...

    def find(self, directory: Path) -> Mapping[str, Path] | None:
        """Its files, by name, if ``directory`` has them."""
        ...

    def read(self, paths: Mapping[str, Path], say: Say) -> Arrays:
        """The data set that its files hold.

        Raises:
            ValueError: if a file is damaged or isn't the one it should be.
        """
        ...


def fingerprint(paths: Iterable[Path]) -> str:
    """Tells files apart by path, size and time, without reading them."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            about = path.stat()
        except OSError:  # of a link that leads nowhere
            about = path.lstat()
        facts = f"{path}\0{about.st_size}\0{about.st_mtime_ns}\0"
        digest.update(facts.encode(errors="surrogateescape"))
    return digest.hexdigest()[:12]

"""Preparation of released datasets by tensorflow-datasets, with an .npz cache of the result.

Without tensorflow-datasets or array_record, which has no release for Windows, and for datasets
whose classes only the files tell, the files are downloaded and decoded directly into the cache.

All write to temporary paths that are renamed on completion, and a lock file excludes concurrent
preparation by several processes.
"""

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

from jvae_jax.data import cache
from jvae_jax.data.archives import DamagedFileError
from jvae_jax.data.dataset import Dataset
from jvae_jax.data.download import connection_failure, download
from jvae_jax.data.source import PreparedData, Source, fingerprint
from jvae_jax.files import lock_file

logger = logging.getLogger(__name__)


def load(source: Source, directory: Path) -> Dataset:
    """Loads a dataset from the cache, else prepares it from local or downloaded files.

    Prepared data are written to ``directory``, or to the user's cache directory if ``directory``
    contains the files but isn't writable.

    Args:
        source: the released dataset.
        directory: directory of the files, downloads and prepared data.

    Raises:
        ValueError: if a file in ``directory`` is damaged or isn't the released one.
        ConnectionError: if the dataset is neither in ``directory`` nor can be downloaded.
        OSError: if the prepared data can't be written.
    """
    files = source.find(directory)
    home = directory
    if files is not None and not os.access(directory, os.W_OK):
        home = cache.CACHE_DIR.expanduser()
    paths = _PreparedPaths(source, home)
    origin = None if files is None or source.has_checksums else fingerprint(files.values())
    data = cache.read(paths.cache, origin)
    if data is None and files is None and not paths.is_prepared():
        _check_connection(source, directory, paths.downloads)
    if data is None:
        home.mkdir(parents=True, exist_ok=True)
        with paths.lock():
            # Another process may have prepared the data while this one waited for the lock.
            data = cache.read(paths.cache, origin) or _prepare(source, files, paths, origin)
    for note in data.notes:
        logger.warning("%s", note)
    class_names = source.class_names or data.class_names
    return Dataset(name=source.name, class_names=class_names, **data.arrays)


class _PreparedPaths:
    """Paths of the prepared data of a source."""

    def __init__(self, source: Source, home: Path) -> None:
        height, width, _ = source.image_shape
        self.home = home
        self.name = f"{source.name.replace('/', '_')}_{height}x{width}"
        self.cache = home / f"{self.name}.npz"
        self.folder = home / "jvae_images" / self.name
        # The splits of EMNIST share an archive.
        self.downloads = home / "jvae_images" / "downloads" / source.name.split("/")[0]

    def is_prepared(self) -> bool:
        """Whether tensorflow-datasets has prepared the source."""
        return any(self.folder.glob("[0-9].[0-9].[0-9]/dataset_info.json"))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Excludes other processes, and removes the temporary folders of killed ones."""
        with lock_file(self.home / ".jvae_jax.lock"):
            for folder in self.folder.glob("incomplete.*"):
                shutil.rmtree(folder)
            yield


def _check_connection(source: Source, directory: Path, downloads: Path) -> None:
    """Raises ConnectionError if files are missing and can't be downloaded."""
    missing = [name for name in source.urls if not (downloads / name).exists()]
    if not missing:
        return
    names = ", ".join(source.urls)
    if source.homepage is not None:
        raise ConnectionError(
            f"{source.name} is not in {directory}; get {names} from {source.homepage}, whose terms "
            f"must be agreed to, and put it into {directory}"
        )
    if failure := connection_failure(source.urls[missing[0]]):
        raise ConnectionError(
            f"{source.name} is not in {directory} and can't be downloaded ({failure}); "
            f"put {names} there"
        )


def _prepare(
    source: Source, files: Mapping[str, Path] | None, paths: _PreparedPaths, origin: str | None
) -> PreparedData:
    # tensorflow-datasets needs the class names beforehand.
    tfds = None if source.class_names is None else _import_tfds(source.name)
    if origin is not None:  # The prepared data may stem from other files.
        shutil.rmtree(paths.folder, ignore_errors=True)
    downloaded = {}
    if files is None and not (tfds and paths.is_prepared()):
        files = downloaded = download(source, paths.downloads)
    try:
        if tfds is None:
            data = source.read(files or {})
        else:
            data = tfds.prepare(source, files, config=paths.name, data_dir=paths.home)
    except DamagedFileError as error:
        if not downloaded:
            raise
        for path in downloaded.values():
            path.unlink()
        raise ConnectionError(f"downloading {source.name} failed: {error}") from error
    return cache.write(paths.cache, data, origin)


def _import_tfds(name: str) -> ModuleType | None:
    """Imports :mod:`jvae_jax.data.tfds`, which takes seconds; None if it can't be imported."""
    try:
        from jvae_jax.data import tfds
    except ImportError as error:
        logger.info("preparing %s without tensorflow-datasets (%s)", name, error)
        return None
    return tfds

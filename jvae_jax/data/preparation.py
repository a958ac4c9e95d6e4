"""Preparation of released datasets by tensorflow-datasets, with an .npz cache of the result.

Without tensorflow-datasets or array_record, which has no release for Windows, and for datasets
whose classes only the files tell, the files are downloaded and decoded directly into the cache.

All write to temporary paths that are renamed on completion, and a lock file excludes concurrent
preparation by several processes.
"""

import contextlib
import http.client
import logging
import os
import shutil
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

from tqdm import tqdm

from jvae_jax.data import cache
from jvae_jax.data.dataset import Dataset
from jvae_jax.data.source import PreparedData, Source, fingerprint
from jvae_jax.files import atomic_write, lock_file

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 5.0
_DOWNLOAD_TIMEOUT_SECONDS = 60.0
"""Seconds without any byte after which a download fails."""


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
    must_download = data is None and files is None and not paths.is_prepared()
    url = next(iter(source.urls.values()))
    if must_download and (
        failure := connection_failure(url)
        if source.is_downloadable
        else f"it is to be had from {url}"
    ):
        raise ConnectionError(
            f"{source.name} is not in {directory} and can't be downloaded ({failure}); "
            f"put {', '.join(source.urls)} there"
        )
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
        self.downloads = home / "jvae_images" / "downloads"

    def is_prepared(self) -> bool:
        """Whether tensorflow-datasets has prepared the source."""
        return any(self.folder.glob("[0-9].[0-9].[0-9]/dataset_info.json"))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Excludes other processes, and removes the temporary folders of killed ones."""
        with lock_file(self.home / ".jvae_jax.lock"):
            for folder in (*self.folder.glob("incomplete.*"), *self.downloads.glob("*.tmp.*")):
                shutil.rmtree(folder)
            yield


def _prepare(
    source: Source, files: Mapping[str, Path] | None, paths: _PreparedPaths, origin: str | None
) -> PreparedData:
    # tensorflow-datasets needs the class names beforehand.
    tfds = None if source.class_names is None else _import_tfds(source.name)
    if tfds is None:
        data = source.read(files) if files is not None else _download(source, paths.downloads)
    else:
        if origin is not None:  # The prepared data may stem from other files.
            shutil.rmtree(paths.folder, ignore_errors=True)
        data = tfds.prepare(
            source, files, config=paths.name, data_dir=paths.home, downloads=paths.downloads
        )
    cache.write(paths.cache, data, origin)
    return data


def _import_tfds(name: str) -> ModuleType | None:
    """Imports :mod:`jvae_jax.data.tfds`, which takes seconds; None if it can't be imported."""
    try:
        from jvae_jax.data import tfds
    except ImportError as error:
        logger.info("preparing %s without tensorflow-datasets (%s)", name, error)
        return None
    return tfds


def _download(source: Source, downloads: Path) -> PreparedData:
    """Downloads a source's files, unless they are in ``downloads`` already, and reads them."""
    folder = downloads / source.name.split("/")[0]  # the splits of EMNIST share an archive
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / name for name in source.urls}
    try:
        for name, url in source.urls.items():
            if not files[name].exists():
                _download_file(url, files[name])
        return source.read(files)
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # of a file here, not of the network
        if isinstance(error, ValueError):  # A file is damaged.
            for file in files.values():
                file.unlink(missing_ok=True)
        raise ConnectionError(f"downloading {source.name} failed: {error}") from error


def _download_file(url: str, path: Path) -> None:
    cache.remove_leftovers(path)
    with urllib.request.urlopen(url, timeout=_DOWNLOAD_TIMEOUT_SECONDS) as response:
        size = int(response.headers.get("Content-Length") or 0)
        with (
            atomic_write(path) as file,
            tqdm.wrapattr(file, "write", total=size, desc=path.name, disable=None) as output,
        ):
            while chunk := response.read(1 << 20):
                output.write(chunk)
            if size and file.tell() != size:
                raise ConnectionError(f"{url} ended after {file.tell():,} of {size:,} bytes")


def connection_failure(url: str) -> str | None:
    """Returns the reason why ``url`` can't be fetched, or None if it can, within 5 seconds."""
    # In a thread, because name resolution has no timeout.
    result = [f"no answer within {_TIMEOUT_SECONDS:g} seconds"]

    def request_head() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS):
                result[0] = ""
        except (OSError, http.client.HTTPException) as error:
            result[0] = str(getattr(error, "reason", error))

    thread = threading.Thread(target=request_head, daemon=True)
    thread.start()
    thread.join(_TIMEOUT_SECONDS)
    return result[0] or None

"""Data sets that are prepared once, by tensorflow-datasets, and then read from an .npz cache.

Both are written under another name and moved into place when whole, by one process at a time.
"""

import contextlib
import fcntl
import os
import shutil
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from jvae_jax.data import cache
from jvae_jax.data.dataset import Dataset
from jvae_jax.data.source import Say, Source, fingerprint


def load(source: Source, directory: Path, *, say: Say) -> Dataset:
    """A data set from the cache, from what is prepared, from its files, or downloaded.

    Where ``directory`` has the files but can't be written, what is prepared lies in the user's
    cache folder.

    Raises:
        ValueError: if a file in ``directory`` isn't the one it should be.
        ConnectionError: if the data set is neither there nor to be downloaded.
        OSError: if what is prepared can't be written.
    """
    found = source.find(directory)
    home = directory
    if found is not None and not os.access(directory, os.W_OK):
        home = cache.HOME.expanduser()
    place = _Place(source, home)
    origin = None if found is None or source.checked else fingerprint(found.values())
    entry = cache.read(place.cache, origin)
    must_download = entry is None and found is None and not place.is_prepared()
    if must_download and (obstacle := unreachable(next(iter(source.urls.values())))):
        raise ConnectionError(
            f"{source.name} is not in {directory} and can't be downloaded ({obstacle}); "
            f"put {', '.join(source.urls)} there"
        )
    if entry is None:
        home.mkdir(parents=True, exist_ok=True)
        with place.alone():
            # Meanwhile another process may have made it.
            entry = cache.read(place.cache, origin) or _prepare(source, found, place, origin)
    for note in entry.notes:
        say(note)
    return Dataset(name=source.name, class_names=source.class_names, **entry.arrays)


class _Place:
    """Where the prepared forms of a source lie."""

    def __init__(self, source: Source, home: Path) -> None:
        height, width, _ = source.image_shape
        self.home = home
        self.name = f"{source.name.replace('/', '_')}_{height}x{width}"
        self.cache = home / f"{self.name}.npz"
        self.folder = home / "jvae_images" / self.name
        self.downloads = home / "jvae_images" / "downloads"

    def is_prepared(self) -> bool:
        """Whether tensorflow-datasets has done its part."""
        return any(self.folder.glob("[0-9].[0-9].[0-9]/dataset_info.json"))

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """While no other process prepares anything there; removes what a killed one left."""
        with (self.home / ".jvae_jax.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            for folder in (*self.folder.glob("incomplete.*"), *self.downloads.glob("*.tmp.*")):
                shutil.rmtree(folder)
            yield


def _prepare(
    source: Source, found: Mapping[str, Path] | None, place: _Place, origin: str | None
) -> cache.Entry:
    # It imports tensorflow-datasets, which takes seconds.
    from jvae_jax.data import tfds

    if origin is not None:  # What is prepared may be of other files.
        shutil.rmtree(place.folder, ignore_errors=True)
    notes: list[str] = []
    arrays = tfds.prepare(
        source,
        found,
        config=place.name,
        data_dir=place.home,
        downloads=place.downloads,
        say=notes.append,
    )
    entry = cache.Entry(arrays, tuple(notes))
    cache.write(place.cache, entry, origin)
    return entry


_SECONDS = 5.0


def unreachable(url: str) -> str | None:
    """Why ``url`` can't be fetched, in a few words, or None if it can; found in 5 seconds."""
    # A thread, since no time-out covers the look-up of a host's name.
    answer = [f"no answer within {_SECONDS:g} seconds"]

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=_SECONDS):
                answer[0] = ""
        except OSError as error:
            answer[0] = str(getattr(error, "reason", error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return answer[0] or None

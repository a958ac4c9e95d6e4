"""Atomic file writes, lock files, and files of arrays with a checksum."""

import errno
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

logger = logging.getLogger(__name__)

_DIGEST = "sha256"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of locking on file systems that have no locks."""


def check_regular_file(path: Path) -> None:
    """Raises FileExistsError if a path is anything but a regular file or free.

    Opening a FIFO would block, and writing to a link would change a file elsewhere.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        kind = "a symbolic link" if path.is_symlink() else "not a regular file"
        raise FileExistsError(f"{path} is {kind}, and is not replaced; write to another place")


def file_suffix(output: str) -> str:
    """Returns the suffix of an output's path in lower case, without the dot.

    Raises:
        ValueError: if it isn't the path of a file.
    """
    if not Path(output).name:
        raise ValueError(f"output must be the path of a file, got {output!r}")
    return Path(output).suffix[1:].lower()


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Opens a temporary file that replaces ``path`` when the context exits without an error.

    Yields:
        A binary file open for writing.

    Raises:
        FileNotFoundError: if the parent folder doesn't exist.
        FileExistsError: if something other than a regular file is in the way.
        OSError: if the file can't be written; ``path`` is unchanged.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} into")
    check_regular_file(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with naming(path, temporary):
        try:
            # A killed process may have had the same ID.
            temporary.unlink(missing_ok=True)
            with temporary.open("xb") as file:
                yield file
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def append(path: Path, text: str) -> None:
    """Appends text in UTF-8 to a regular file.

    Raises:
        OSError: if it can't be written; a part of the text may have been.
    """
    with naming(path), path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(text)


@contextmanager
def lock_file(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Excludes other processes and threads by a lock file, which is released when they end.

    On a file system without locks, nobody is excluded, with a warning.

    Args:
        path: path of the lock file.
        wait: whether to wait while the file is locked.

    Raises:
        TimeoutError: if the file is locked and ``wait`` is False.
        OSError: if it can't be written.
    """
    lock = FileLock(path)
    try:
        try:
            lock.acquire(timeout=0)
        except TimeoutError:
            if not wait:
                raise
            logger.info("waiting for another process: %s is locked", path)
            lock.acquire()
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        logger.warning("%s: the file system has no locks; work there in one process only", path)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Names ``path`` in errors of writing, which name no file or the temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_json(path: Path, contents: Any, *, indent: int | None = 2) -> None:
    """Writes ``contents`` atomically as JSON in UTF-8; on one line if ``indent`` is None.

    Bytes of a path that aren't text, which Python holds as lone surrogates, become JSON's escapes.
    """
    text = json.dumps(contents, indent=indent, ensure_ascii=False)
    with atomic_write(path) as file:
        file.write(f"{text}\n".encode(errors="backslashreplace"))


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes arrays atomically as safetensors, with a checksum in the metadata."""
    # safetensors writes an array's memory regardless of its strides.
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    contents = save(contiguous, metadata={_DIGEST: _named_digest(contiguous)})
    with atomic_write(path) as file:
        file.write(contents)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Loads the arrays of a safetensors file, and compares their checksum if there is one.

    Raises:
        ValueError: if the file is damaged.
        OSError: if it can't be read.
    """
    try:
        with safe_open(path, framework="np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            digest = (file.metadata() or {}).get(_DIGEST)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if digest not in (None, _named_digest(arrays)):
        raise ValueError(f"{path} is damaged: the checksum of its arrays doesn't match")
    return arrays


def _named_digest(arrays: Mapping[str, np.ndarray]) -> str:
    names = sorted(arrays)
    return array_digest((arrays[name] for name in names), json.dumps(names))


def array_digest(arrays: Iterable[Any], text: str = "") -> str:
    """Returns the SHA-256 of arrays (their values, dtypes, shapes and order) and of a text."""
    digest = hashlib.sha256()
    for array in map(np.asarray, arrays):
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    digest.update(text.encode())
    return digest.hexdigest()

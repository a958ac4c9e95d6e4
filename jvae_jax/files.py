"""Atomic file writes."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


def check_regular_file(path: Path) -> None:
    """Raises FileExistsError if a path is anything but a regular file or free.

    Opening a FIFO would block, and writing to a link would change a file elsewhere.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        kind = "a symbolic link" if path.is_symlink() else "not a regular file"
        raise FileExistsError(f"{path} is {kind}, and is not replaced; write to another place")


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
    with _naming(path, temporary):
        try:
            # A killed process may have had the same ID.
            temporary.unlink(missing_ok=True)
            with temporary.open("xb") as file:
                yield file
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Names ``path`` in errors of writing, which name no file or the temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_json(path: Path, contents: Any) -> None:
    """Writes ``contents`` atomically as indented JSON in UTF-8.

    Bytes of a path that aren't text, which Python holds as lone surrogates, become JSON's escapes.
    """
    text = json.dumps(contents, indent=2, ensure_ascii=False)
    with atomic_write(path) as file:
        file.write(f"{text}\n".encode(errors="backslashreplace"))

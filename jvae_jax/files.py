"""Atomic file writes."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Opens a temporary file that replaces ``path`` when the context exits without an error.

    Yields:
        A binary file open for writing.

    Raises:
        FileNotFoundError: if the parent folder doesn't exist.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} into")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, contents: Any) -> None:
    """Writes ``contents`` atomically as indented JSON in UTF-8."""
    text = json.dumps(contents, indent=2, ensure_ascii=False)
    with atomic_write(path) as file:
        file.write(f"{text}\n".encode())

"""Files inside zip and tar archives, read without unpacking anything."""

import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

_LARGEST = 1 << 30

Wanted = Callable[[PurePosixPath], bool]


def members(archive: Path, wanted: Wanted) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Those files of a zip or tar archive, compressed or not, that are wanted, with their contents.

    Raises:
        ValueError: if the archive is damaged, or has a member that points outside, or a wanted one
            is a link or has over 1 GiB.
    """
    read = _zip_members if zipfile.is_zipfile(archive) else _tar_members
    try:
        yield from read(archive, wanted)
    except (
        EOFError,
        OSError,
        RuntimeError,  # where it is encrypted or compressed in an unknown way
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise damaged(archive, error) from error


def damaged(path: Path | str, error: Exception) -> ValueError:
    """What to tell of a file that can't be read for this error."""
    first_line, *_ = str(error).splitlines() or [type(error).__name__]
    return ValueError(f"{path} is damaged ({first_line}); remove it, or put a whole one there")


def _zip_members(archive: Path, wanted: Wanted) -> Iterator[tuple[PurePosixPath, bytes]]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            path = _inside(archive, info.filename)
            if not info.is_dir() and wanted(path):
                _check_size(archive, path, info.file_size)
                yield path, file.read(info)


def _tar_members(archive: Path, wanted: Wanted) -> Iterator[tuple[PurePosixPath, bytes]]:
    with tarfile.open(archive) as file:
        for info in file:
            path = _inside(archive, info.name)
            if info.isdir() or not wanted(path):
                continue
            _check_size(archive, path, info.size)
            content = file.extractfile(info) if info.isreg() else None
            if content is None:
                raise ValueError(f"{archive} is refused: {path} in it is no file but a link")
            yield path, content.read()
        # To the end, where a checksum of the whole stands.
        assert file.fileobj is not None
        while file.fileobj.read(1 << 20):
            pass


def _inside(archive: Path, name: str) -> PurePosixPath:
    path = PureWindowsPath(name)  # which takes slashes of both kinds
    if path.anchor or ".." in path.parts:
        raise ValueError(f"{archive} is refused: {name} in it points outside of it")
    return PurePosixPath(path.as_posix())


def _check_size(archive: Path, path: PurePosixPath, size: int) -> None:
    if size > _LARGEST:
        raise ValueError(f"{archive} is refused: {path} in it has {size:,} bytes")

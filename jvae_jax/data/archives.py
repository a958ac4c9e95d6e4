"""Reading of files inside zip and tar archives, without extracting them to disk."""

import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

_MAX_MEMBER_BYTES = 1 << 30

PathFilter = Callable[[PurePosixPath], bool]


def read_members(archive: Path, select: PathFilter) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yields the path and content of selected files of a zip or tar archive, compressed or not.

    Args:
        archive: path of the archive.
        select: predicate on the path of a member.

    Raises:
        ValueError: if the archive is damaged, a member's path points outside of it, or a selected
            member is a link or larger than 1 GiB.
    """
    read = _read_zip if zipfile.is_zipfile(archive) else _read_tar
    try:
        yield from read(archive, select)
    except (
        EOFError,
        OSError,
        RuntimeError,  # encrypted, or an unsupported compression method
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise damaged_file_error(archive, error) from error


def damaged_file_error(path: Path | str, error: Exception) -> ValueError:
    """Returns the ValueError that reports a damaged file, given the error raised on reading it."""
    first_line, *_ = str(error).splitlines() or [type(error).__name__]
    return ValueError(
        f"{path} is damaged ({first_line}); delete it or replace it with an intact copy"
    )


def _read_zip(archive: Path, select: PathFilter) -> Iterator[tuple[PurePosixPath, bytes]]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            path = _checked_path(archive, info.filename)
            if not info.is_dir() and select(path):
                _check_size(archive, path, info.file_size)
                yield path, file.read(info)


def _read_tar(archive: Path, select: PathFilter) -> Iterator[tuple[PurePosixPath, bytes]]:
    with tarfile.open(archive) as file:
        for info in file:
            path = _checked_path(archive, info.name)
            if info.isdir() or not select(path):
                continue
            _check_size(archive, path, info.size)
            content = file.extractfile(info) if info.isreg() else None
            if content is None:
                raise ValueError(f"{archive} is rejected: its member {path} is a link")
            yield path, content.read()
        # The checksum of a compressed archive is verified only at its end.
        assert file.fileobj is not None
        while file.fileobj.read(1 << 20):
            pass


def _checked_path(archive: Path, name: str) -> PurePosixPath:
    path = PureWindowsPath(name)  # accepts both kinds of slashes
    if path.anchor or ".." in path.parts:
        raise ValueError(f"{archive} is rejected: its member {name} points outside the archive")
    return PurePosixPath(path.as_posix())


def _check_size(archive: Path, path: PurePosixPath, size: int) -> None:
    if size > _MAX_MEMBER_BYTES:
        raise ValueError(
            f"{archive} is rejected: its member {path} has {size:,} bytes, more than "
            f"{_MAX_MEMBER_BYTES:,}"
        )

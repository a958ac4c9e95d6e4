"""Reading of archives without extracting them to disk, and of .npz and .gz files, within bounds."""

import contextlib
import errno
import gzip
import io
import lzma
import math
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from jvae_jax import memory
from jvae_jax.memory import require_memory

_MAX_MEMBER_BYTES = 1 << 30
_LOCAL_HEADER, _NAME_LENGTH = 30, 26
"""Bytes before the name of a member of a zip archive, and position of the name's length."""
_NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

_File = io.BufferedReader | io.BytesIO
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
        lzma.LZMAError,
        OSError,
        RuntimeError,  # encrypted, or an unsupported compression method
        tarfile.TarError,
        UnicodeError,  # in the name of a member
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        if _is_io_error(error):
            raise
        raise damaged_file_error(archive, error) from error


def list_sizes(archive: Path, select: PathFilter) -> list[int]:
    """Lists the sizes in bytes of selected files of a zip archive.

    Empty for a tar archive, which doesn't list its files, and for a damaged one, which
    :func:`read_members` reports.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            return [info.file_size for _, info in _selected(opened, archive, select)]
    except (OSError, RuntimeError, UnicodeError, ValueError, zipfile.BadZipFile):
        return []


def list_arrays(file: _File) -> list[str]:
    """Lists the names of the arrays of an .npz file.

    Raises:
        ValueError: if the file isn't a zip archive, or contains a name twice.
    """
    with _reporting_damage(), zipfile.ZipFile(file) as archive:
        return list(_members_by_array(archive))


def read_arrays(file: _File, names: Collection[str]) -> dict[str, np.ndarray]:
    """Reads arrays of an .npz file.

    Unlike ``np.load``, which allocates what an array's header claims, it compares the claim with
    the size of the member first, and the sizes with the machine's memory. An array of more than
    ``memory.LARGE_BYTES`` that isn't compressed, as ``np.savez`` writes it, is memory-mapped; its
    checksum isn't verified, and the file must not be overwritten while it is used.

    Args:
        file: the .npz file.
        names: names of the arrays.

    Raises:
        ValueError: if the file is damaged or encrypted, an array is missing, damaged or of objects,
            or the arrays exceed the memory.
    """
    with _reporting_damage(), zipfile.ZipFile(file) as archive:
        members = _members_by_array(archive)
        if missing := [name for name in names if name not in members]:
            raise ValueError(f"it has no {missing[0]}")
        mapped = {name for name in names if _can_be_mapped(file, members[name])}
        size = sum(members[name].file_size for name in names if name not in mapped)
        require_memory(size, f"reading {size:,} bytes of arrays")
        return {
            name: _read_array(archive, members[name], name, file if name in mapped else None)
            for name in names
        }


def decompress_gzip(content: bytes) -> bytes:
    """Decompresses the content of a .gz file.

    Raises:
        ValueError: if it is damaged, or larger than 1 GiB.
    """
    decompressed = io.BytesIO()
    with _reporting_damage(), gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        while chunk := file.read(1 << 20):
            decompressed.write(chunk)
            if decompressed.tell() > _MAX_MEMBER_BYTES:
                raise ValueError(f"its content has more than {_MAX_MEMBER_BYTES:,} bytes")
    return decompressed.getvalue()


class DamagedFileError(ValueError):
    """A file of data is damaged."""


def damaged_file_error(path: Path | str, error: Exception) -> DamagedFileError:
    """Returns the error that reports a damaged file, given the error raised on reading it."""
    first_line, *_ = str(error).splitlines() or [type(error).__name__]
    return DamagedFileError(
        f"{path} is damaged ({first_line}); delete it or replace it with an intact copy"
    )


def _read_zip(archive: Path, select: PathFilter) -> Iterator[tuple[PurePosixPath, bytes]]:
    with zipfile.ZipFile(archive) as file:
        for path, info in _selected(file, archive, select):
            _check_size(archive, path, info.file_size)
            yield path, file.read(info)


def _selected(
    file: zipfile.ZipFile, archive: Path, select: PathFilter
) -> Iterator[tuple[PurePosixPath, zipfile.ZipInfo]]:
    for info in file.infolist():
        path = _checked_path(archive, info.filename)
        if not info.is_dir() and select(path):
            yield path, info


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
        stream: Any = file.fileobj
        while stream.read(1 << 20):
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


def _members_by_array(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name in members:
            raise ValueError(f"it contains {name!r} twice")
        members[name] = info
    return members


def _can_be_mapped(file: _File, info: zipfile.ZipInfo) -> bool:
    is_stored = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1
    is_large = info.file_size > memory.LARGE_BYTES
    return is_stored and is_large and isinstance(file, io.BufferedReader)


def _read_array(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, mapped: _File | None
) -> np.ndarray:
    """Reads an array; maps it instead if its file is given as ``mapped``."""
    if info.flag_bits & 1:
        raise ValueError(f"{name} is encrypted")
    with _reporting_damage(f"{name}: "), archive.open(info) as member:
        try:
            version = np.lib.format.read_magic(member)
        except ValueError as error:
            raise ValueError(f"{name} isn't an array") from error
        if version not in _NPY_HEADERS:
            raise ValueError(f"the array {name} has the unknown format {version}")
        shape, is_fortran, dtype = _NPY_HEADERS[version](member)
        if dtype.hasobject:
            raise ValueError(f"Object arrays are never unpickled, and {name} is one")
        if dtype.kind not in "biufcSU" or not dtype.itemsize:
            raise ValueError(f"{name} must be an array of numbers or text, got {dtype}")
        start = member.tell()
        claimed, held = math.prod(shape) * dtype.itemsize, info.file_size - start
        if claimed != held:
            raise ValueError(
                f"the header of {name} claims {claimed:,} bytes, {dtype} of shape {shape}, but it "
                f"has {held:,}"
            )
    if mapped is not None:
        mapped.seek(info.header_offset + _NAME_LENGTH)
        name_length, extra_length = struct.unpack("<HH", mapped.read(4))
        start += info.header_offset + _LOCAL_HEADER + name_length + extra_length
        return np.memmap(mapped, dtype, "r", start, shape, "F" if is_fortran else "C")
    with _reporting_damage(f"{name}: "), archive.open(info) as member:
        return np.lib.format.read_array(member, allow_pickle=False)


@contextlib.contextmanager
def _reporting_damage(prefix: str = "") -> Iterator[None]:
    """Turns the errors of a damaged file into ValueErrors without the file's name."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:  # zipfile and numpy raise arbitrary exceptions on damaged files.
        if _is_io_error(error):
            raise
        raise ValueError(f"{prefix}{str(error) or type(error).__name__}") from error


def _is_io_error(error: Exception) -> bool:
    """Whether the system reports an error other than a wrong offset, which a damaged zip holds."""
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)

"""Reading zip and tar archives, intact, damaged and malicious."""

import tarfile
import zipfile

import numpy as np
import pytest
from helpers import write_tar, write_zip

from jvae_jax.data import archives

FILES = {"a/1.png": b"one", "a/2.png": b"two", "b/ふ.png": b"three"}


WRITERS = pytest.mark.parametrize("write", [write_zip, write_tar])


def read_all(archive):
    return {str(path): content for path, content in archives.read_members(archive, lambda _: True)}


@WRITERS
def test_reads_all_members(write, tmp_path):
    assert read_all(write(tmp_path / "archive", FILES)) == FILES


def test_lists_sizes_of_the_members_that_are_read(tmp_path):
    """Of zip archives alone, with either kind of slashes; other errors are left to reading."""
    write_zip(tmp_path / "a.zip", {**FILES, "b\\4.png": b"four", "c/": b""})
    selected = []

    def select(path):
        selected.append(str(path))
        return path.name != "1.png"

    assert archives.list_sizes(tmp_path / "a.zip", select) == [3, 5, 4]
    assert selected == ["a/1.png", "a/2.png", "b/ふ.png", "b/4.png"]
    write_tar(tmp_path / "a.tar", FILES)
    (tmp_path / "cut.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:-9])
    for name in ("a.tar", "cut.zip", "missing.zip"):
        assert archives.list_sizes(tmp_path / name, select) == []


@WRITERS
def test_reads_selected_members_only(write, tmp_path):
    archive = write(tmp_path / "archive", FILES)
    members = dict(archives.read_members(archive, lambda path: path.name == "2.png"))
    assert list(members.values()) == [b"two"]


@pytest.mark.fault(
    "data files", "archive with a link or a path outside", "refused, nothing written"
)
@WRITERS
@pytest.mark.parametrize("name", ["../out.png", "a/../../out.png", "/out.png", "C:\\out.png"])
def test_rejects_paths_outside_the_archive(write, name, tmp_path):
    archive = write(tmp_path / "archive", FILES | {name: b"x"})
    with pytest.raises(ValueError, match=r"archive is rejected: .*out\.png points outside"):
        read_all(archive)
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.fault(
    "data files", "archive with a link or a path outside", "refused, nothing written"
)
def test_rejects_links(tmp_path):
    with tarfile.open(tmp_path / "archive", "w") as archive:
        link = tarfile.TarInfo("a/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(ValueError, match=r"member a/link\.png is a link"):
        read_all(tmp_path / "archive")


@pytest.mark.fault("data files", "archive with a member above 1 GiB", "refused, naming the member")
@WRITERS
def test_rejects_large_members(write, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_MAX_MEMBER_BYTES", 1000)
    archive = write(tmp_path / "archive", FILES | {"a/large.png": bytes(1001)})
    with pytest.raises(ValueError, match=r"a/large\.png has 1,001 bytes"):
        read_all(archive)


@pytest.mark.fault(
    "data files", "archive that is truncated, flipped or encrypted", "refused, naming the file"
)
@WRITERS
@pytest.mark.parametrize("length", [0, 10, 0.5, 0.99])
def test_reports_truncated_archives(write, length, tmp_path):
    content = write(tmp_path / "whole", FILES | {"c/1.png": bytes(range(256)) * 50}).read_bytes()
    archive = tmp_path / "archive"
    archive.write_bytes(content[: length if length > 1 else int(length * len(content))])
    with pytest.raises(ValueError, match=r"archive is damaged \(.+\); delete it or replace it"):
        read_all(archive)


@pytest.mark.fault(
    "data files", "archive that is truncated, flipped or encrypted", "refused, naming the file"
)
@WRITERS
def test_reports_a_flipped_byte(write, tmp_path):
    noise = np.random.default_rng(0).bytes(5000)
    archive = write(tmp_path / "archive", {"a/1.png": noise})
    content = bytearray(archive.read_bytes())
    content[3000] ^= 255
    archive.write_bytes(content)
    with pytest.raises(ValueError, match="archive is damaged"):
        read_all(archive)


@pytest.mark.fault(
    "data files", "archive that is truncated, flipped or encrypted", "refused, naming the file"
)
def test_reports_encrypted_archives(tmp_path):
    content = bytearray(write_zip(tmp_path / "archive", {"a/1.png": b"one"}).read_bytes())
    content[6] |= 1  # the encryption flag, in the local and the central header
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "archive").write_bytes(content)
    with pytest.raises(ValueError, match=r"archive is damaged \(.*encrypted"):
        read_all(tmp_path / "archive")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.fault(
    "data files", "archive that is truncated, flipped or encrypted", "refused, naming the file"
)
def test_reports_damage_in_every_compression(method, tmp_path):
    path = tmp_path / "archive"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a/1.png", np.random.default_rng(0).bytes(500))
    content = path.read_bytes()
    for offset in range(100, 400, 3):
        damaged = bytearray(content)
        damaged[offset] ^= 255
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"archive is (damaged|rejected)"):
            read_all(path)


def test_reports_missing_archives(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        read_all(tmp_path / "nothing.zip")

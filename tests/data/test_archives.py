import tarfile

import numpy as np
import pytest
from helpers import write_tar, write_zip

from jvae_jax.data import archives

FILES = {"a/1.png": b"one", "a/2.png": b"two", "b/ふ.png": b"three"}


WRITERS = pytest.mark.parametrize("write", [write_zip, write_tar])


def contents(archive):
    return {str(path): content for path, content in archives.members(archive, lambda _: True)}


@WRITERS
def test_every_file_is_read(write, tmp_path):
    assert contents(write(tmp_path / "archive", FILES)) == FILES


@WRITERS
def test_what_is_not_wanted_is_not_read(write, tmp_path):
    archive = write(tmp_path / "archive", FILES)
    found = dict(archives.members(archive, lambda path: path.name == "2.png"))
    assert list(found.values()) == [b"two"]


@WRITERS
@pytest.mark.parametrize("name", ["../out.png", "a/../../out.png", "/out.png", "C:\\out.png"])
def test_paths_that_point_outside_are_refused(write, name, tmp_path):
    archive = write(tmp_path / "archive", FILES | {name: b"x"})
    with pytest.raises(ValueError, match=r"archive is refused: .*out\.png in it points outside"):
        contents(archive)
    assert list(tmp_path.iterdir()) == [archive]


def test_links_are_refused(tmp_path):
    with tarfile.open(tmp_path / "archive", "w") as archive:
        link = tarfile.TarInfo("a/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(ValueError, match=r"a/link\.png in it is no file but a link"):
        contents(tmp_path / "archive")


@WRITERS
def test_giants_are_refused(write, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_LARGEST", 1000)
    archive = write(tmp_path / "archive", FILES | {"a/giant.png": bytes(1001)})
    with pytest.raises(ValueError, match=r"a/giant\.png in it has 1,001 bytes"):
        contents(archive)


@WRITERS
@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_truncated_archives_are_told(write, kept, tmp_path):
    content = write(tmp_path / "whole", FILES | {"c/1.png": bytes(range(256)) * 50}).read_bytes()
    archive = tmp_path / "archive"
    archive.write_bytes(content[: kept if kept > 1 else int(kept * len(content))])
    with pytest.raises(ValueError, match=r"archive is damaged \(.+\); remove it, or put a whole"):
        contents(archive)


@WRITERS
def test_a_flipped_byte_is_told(write, tmp_path):
    noise = np.random.default_rng(0).bytes(5000)
    archive = write(tmp_path / "archive", {"a/1.png": noise})
    content = bytearray(archive.read_bytes())
    content[3000] ^= 255
    archive.write_bytes(content)
    with pytest.raises(ValueError, match="archive is damaged"):
        contents(archive)


def test_an_encrypted_archive_is_told(tmp_path):
    content = bytearray(write_zip(tmp_path / "archive", {"a/1.png": b"one"}).read_bytes())
    content[6] |= 1  # the flag of encryption, in both of the places where it stands
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "archive").write_bytes(content)
    with pytest.raises(ValueError, match=r"archive is damaged \(.*encrypted"):
        contents(tmp_path / "archive")


def test_a_missing_archive_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        contents(tmp_path / "nothing.zip")

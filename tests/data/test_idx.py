"""IDX and .npz releases, read from small synthetic files of the released formats."""

import gzip
import hashlib
import math
import os
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from helpers import idx_file, make_release, write_files

from jvae_jax.data import archives
from jvae_jax.data.idx import RELEASES


def read(release, folder):
    data = release.read(release.find(folder))
    assert data.notes == ()
    return data.arrays


def test_releases_are_complete():
    assert {
        name: (len(release.class_names), len(release.files)) for name, release in RELEASES.items()
    } == {
        "mnist": (10, 4),
        "fashion_mnist": (10, 4),
        "kmnist": (10, 4),
        "k49": (49, 4),
        "emnist/digits": (10, 4),
        "emnist/mnist": (10, 4),
        "emnist/letters": (26, 4),
        "emnist/balanced": (47, 4),
        "emnist/bymerge": (47, 4),
        "emnist/byclass": (62, 4),
    }
    lengths = {"md5": 32, "sha256": 64, "content": 64}
    for release in RELEASES.values():
        checksums = [*release.files.values(), *(release.archive or ())[1:]]
        for algorithm, _, digest in (checksum.partition(" ") for checksum in checksums if checksum):
            assert len(bytes.fromhex(digest)) * 2 == lengths[algorithm]
        assert len(set(release.class_names)) == len(release.class_names)


@pytest.mark.parametrize("name", RELEASES)
@pytest.mark.parametrize("sub_folder", [True, False])
def test_reads_local_files(name, sub_folder, tmp_path):
    release, contents, arrays = make_release(RELEASES[name])
    write_files(tmp_path / name.split("/")[0] if sub_folder else tmp_path, contents)
    loaded = read(release, tmp_path)
    images = arrays[0].transpose(0, 2, 1) if name.startswith("emnist") else arrays[0]
    np.testing.assert_array_equal(loaded["train_images"][..., 0], images)
    test_images = arrays[2].transpose(0, 2, 1) if name.startswith("emnist") else arrays[2]
    np.testing.assert_array_equal(loaded["test_images"][..., 0], test_images)
    np.testing.assert_array_equal(loaded["train_labels"], np.arange(30) % len(release.class_names))
    np.testing.assert_array_equal(loaded["test_labels"], np.arange(10))
    assert {loaded[f"{split}_labels"].dtype for split in ("train", "test")} == {np.dtype("int32")}


def test_class_names_in_the_order_of_the_labels():
    names = {name: release.class_names for name, release in RELEASES.items()}
    digits = tuple(map(str, range(10)))
    capitals = tuple(map(chr, range(ord("A"), ord("Z") + 1)))
    assert names["mnist"] == names["emnist/digits"] == names["emnist/mnist"] == digits
    assert names["emnist/letters"] == capitals
    # Small letters that look like their capitals are merged with them.
    merged = set("CIJKLMOPSUVWXYZ".lower())
    small = tuple(letter.lower() for letter in capitals if letter.lower() not in merged)
    assert names["emnist/balanced"] == names["emnist/bymerge"] == digits + capitals + small
    assert names["emnist/byclass"] == digits + capitals + tuple(map(str.lower, capitals))
    assert names["fashion_mnist"][:3] == ("T-shirt", "trouser", "pullover")
    assert names["fashion_mnist"][5:] == ("sandal", "shirt", "sneaker", "bag", "boot")
    # One character of each row of the syllabary, and all of them, in the order of Unicode.
    assert names["kmnist"] == ("お", "き", "す", "つ", "な", "は", "ま", "や", "れ", "を")
    assert names["k49"] == tuple(sorted(names["k49"]))
    assert (names["k49"][0], names["k49"][-2:]) == ("あ", ("ん", "ゝ"))
    assert set(names["kmnist"]) < set(names["k49"])


def test_first_labels_of_mnist(mnist_files):
    """Those that everybody knows."""
    loaded = read(RELEASES["mnist"], mnist_files)
    assert loaded["train_labels"][:5].tolist() == [5, 0, 4, 1, 9]
    assert loaded["test_labels"][:5].tolist() == [7, 2, 1, 0, 4]
    assert (len(loaded["train_images"]), len(loaded["test_images"])) == (60_000, 10_000)


def test_reads_files_in_an_archive(tmp_path):
    release, contents, _ = make_release(RELEASES["emnist/letters"])
    write_files(tmp_path / "plain", contents)
    with zipfile.ZipFile(tmp_path / "gzip.zip", "w") as archive:
        for name, content in {**contents, "other-images.gz": b"not read"}.items():
            archive.writestr(f"gzip/{name}", content)
    digest = hashlib.sha256((tmp_path / "gzip.zip").read_bytes()).hexdigest()
    expected = read(release, tmp_path / "plain")
    assert list(release.urls) == ["gzip.zip"]
    loaded = read(replace(release, archive=("gzip.zip", f"sha256 {digest}")), tmp_path)
    for key in expected:
        np.testing.assert_array_equal(loaded[key], expected[key])
    with pytest.raises(
        ValueError, match=rf"gzip\.zip isn't the released file: its sha256 is {digest}"
    ):
        read(release, tmp_path)


def test_does_not_find_incomplete_releases(tmp_path):
    release, contents, _ = make_release(RELEASES["kmnist"])
    contents.popitem()
    write_files(tmp_path, contents)
    assert release.find(tmp_path) is None


@pytest.mark.fault("data files", "released file of another checksum", "refused, naming the file")
@pytest.mark.parametrize("name", ["kmnist", "k49"])
def test_reports_checksum_mismatches(name, tmp_path):
    _, contents, _ = make_release(RELEASES[name])
    write_files(tmp_path, contents)
    first = next(iter(contents))
    message = (
        rf"{first} isn't the released file: its (md5|sha256) is .*; delete .* after the dataset"
    )
    with pytest.raises(ValueError, match=message):
        read(RELEASES[name], tmp_path)


@pytest.mark.fault("data files", "released file of another checksum", "refused, naming the file")
def test_verifies_decompressed_content(tmp_path):
    """Mirrors compress MNIST's files differently, so only the content has a fixed checksum."""
    _, contents, _ = make_release(RELEASES["mnist"])
    write_files(tmp_path, contents)
    with pytest.raises(ValueError, match=r"idx3-ubyte\.gz isn't .* the sha256 of its content is"):
        read(RELEASES["mnist"], tmp_path)


@pytest.mark.fault("data files", "truncated released file", "refused, naming the file")
@pytest.mark.parametrize("name", ["emnist/letters", "k49"])
@pytest.mark.parametrize("fraction", [0, 0.5])
def test_reports_truncated_files(name, fraction, tmp_path):
    release, contents, _ = make_release(RELEASES[name])
    first, content = next(iter(contents.items()))
    write_files(tmp_path, contents | {first: content[: int(fraction * len(content))]})
    unchecked = replace(release, files=dict.fromkeys(release.files, ""))
    with pytest.raises(ValueError, match=rf"{first} is damaged \(.+\); delete it"):
        read(unchecked, tmp_path)


@pytest.mark.fault("data files", "file of another format", "refused, naming the file")
def test_reports_files_of_other_formats(tmp_path):
    release, contents, _ = make_release(RELEASES["emnist/letters"])
    first = next(iter(contents))
    unchecked = replace(release, files=dict.fromkeys(release.files, ""))
    for content in (b"", b"abc", b"some text that is long enough", idx_file(np.ones((3, 28, 28)))):
        write_files(tmp_path, contents | {first: gzip.compress(content)})
        with pytest.raises(ValueError, match=rf"{first} is damaged"):
            read(unchecked, tmp_path)


def idx(*shape, content=None, magic=b"\0\0\x08"):
    header = magic + bytes([len(shape)]) + np.array(shape, ">u4").tobytes()
    return gzip.compress(
        header + (bytes(math.prod(shape)) if content is None else content), mtime=0
    )


IMAGES, LABELS = idx(5, 28, 28), idx(5, content=bytes([1, 2, 26, 3, 4]))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (idx(2**31, 2**31, 2**31, content=b""), LABELS, r"claims 9,903,520,314,283,042,199,192,9"),
        (idx(*[2**16] * 4, content=b""), LABELS, "images.* claims 18,446,744,073,709,551,616 byt"),
        (
            idx(5, 28, 28, content=bytes(3921)),
            LABELS,
            r"claims 3,920 bytes, shape \(5, 28, 28\), b",
        ),
        (
            idx(0, 28, 28),
            LABELS,
            r"images.* \(examples, 28, 28\), got uint8 of shape \(0, 28, 28\)",
        ),
        (idx(5, 0, 28), LABELS, r"\(examples, 28, 28\), got uint8 of shape \(5, 0, 28\)"),
        (idx(5, 27, 27), LABELS, r"\(examples, 28, 28\), got uint8 of shape \(5, 27, 27\)"),
        (LABELS, LABELS, r"\(examples, 28, 28\), got uint8 of shape \(5,\)"),
        (idx(*[1] * 70), LABELS, r"images.* is damaged"),
        (idx(5, 28, 28, magic=b"\0\1\x08"), LABELS, "not an IDX file of unsigned bytes"),
        (
            IMAGES,
            IMAGES,
            r"labels.* of 5 images must be integers, got uint8 of shape \(5, 28, 28\)",
        ),
        (IMAGES, idx(4), r"labels of 5 images must be integers, got uint8 of shape \(4,\)"),
        (IMAGES, idx(5), "labels.* is damaged .labels must be 1 to 26, got 0"),
        (IMAGES, idx(5, content=bytes([1, 2, 3, 4, 27])), "labels must be 1 to 26, got 27"),
        (gzip.compress(bytes(20_001), mtime=0), LABELS, "its content has more than 20,000 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.fault(
    "data files",
    "IDX files of other shapes, lengths or labels, or that claim terabytes",
    "refused, naming the file",
)
def test_reports_invalid_idx_files(images, labels, message, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_MAX_MEMBER_BYTES", 20_000)
    release = RELEASES["emnist/letters"]
    for contents in ((images, labels, IMAGES, LABELS), (IMAGES, LABELS, images, labels)):
        write_files(tmp_path, dict(zip(release.files, contents, strict=True)))
        with pytest.raises(ValueError, match=message) as error:
            read(release, tmp_path)
        split = "test" if contents[0] is IMAGES and contents[1] is LABELS else "train"
        assert f"emnist-letters-{split}-" in str(error.value)


@pytest.mark.fault("data files", "FIFO in the place of a released file", "not found")
def test_does_not_find_files_that_are_not_regular(tmp_path):
    release, contents, _ = make_release(RELEASES["kmnist"])
    name, _ = contents.popitem()
    write_files(tmp_path, contents)
    os.mkfifo(tmp_path / name)
    assert release.find(tmp_path) is None


def test_every_file_has_a_url():
    assert RELEASES["mnist"].urls["t10k-labels-idx1-ubyte.gz"][0].startswith("https://")
    assert all(
        url.endswith(file)
        for release in RELEASES.values()
        for file, urls in release.urls.items()
        for url in urls
    )
    assert RELEASES["k49"].has_checksums
    assert not RELEASES["emnist/letters"].has_checksums

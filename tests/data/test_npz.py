"""Datasets in .npz files, valid and invalid."""

import mmap
import os
import zipfile

import numpy as np
import pytest

from jvae_jax import data, memory
from jvae_jax.data import Dataset

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
LABELS = np.arange(40) % 2


def load(path, image_size=8):
    return data.load(str(path), image_size=image_size)


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mine.npz"


def test_loads_split_arrays(path):
    save(
        path,
        train_images=IMAGES[:30, ..., None],
        train_labels=LABELS[:30].astype(np.uint8),
        test_images=IMAGES[30:, ..., None],
        test_labels=np.where(LABELS[30:] == 0, -1, 1),
        class_names=["い", "り"],
    )
    dataset = load(path)
    assert dataset.class_names == ("い", "り")
    assert dataset.name == str(path)
    np.testing.assert_array_equal(dataset.train_images[..., 0], IMAGES[:30])
    np.testing.assert_array_equal(dataset.train_labels, LABELS[:30])
    assert sorted(set(dataset.test_labels.tolist())) == [-1, 1]
    assert load(path).fingerprint == dataset.fingerprint


def is_mapped(array):
    while array is not None and not isinstance(array, mmap.mmap):
        array = getattr(array, "base", None)
    return array is not None


@pytest.mark.parametrize("is_fortran", [False, True])
def test_large_arrays_are_memory_mapped(path, monkeypatch, is_fortran):
    order = np.asfortranarray if is_fortran else np.ascontiguousarray
    arrays = {
        "train_images": order(IMAGES[:30]),
        "train_labels": LABELS[:30],
        "test_images": order(IMAGES[30:]),
        "test_labels": LABELS[30:],
    }
    monkeypatch.setattr(memory, "LARGE_BYTES", IMAGES[:20].nbytes)
    size = IMAGES.shape[1]
    for write, mapped in ((np.savez, True), (np.savez_compressed, False)):
        write(path, **arrays)
        if mapped:
            assert f"'fortran_order': {is_fortran}".encode() in path.read_bytes()
        dataset = load(path, size)
        assert is_mapped(dataset.train_images) == mapped
        assert not is_mapped(dataset.test_images)
        np.testing.assert_array_equal(dataset.train_images[..., 0], IMAGES[:30])
        np.testing.assert_array_equal(dataset.train_labels, LABELS[:30])
    # What a mapped file claims is compared with what it holds, too.
    np.savez(path, **arrays)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"(30, ", b"(31, "))
    with pytest.raises(ValueError, match=r"can't be read: .*train_images"):
        load(path, size)


def test_splits_unsplit_arrays(path):
    dataset = load(save(path, images=IMAGES, labels=LABELS))
    assert dataset.class_names == ("0", "1")
    np.testing.assert_array_equal(np.bincount(dataset.train_labels), [18, 18])
    np.testing.assert_array_equal(np.bincount(dataset.test_labels), [2, 2])


def test_pads_to_squares_and_resizes(path):
    save(path, images=np.full((40, 4, 8, 3), 9, np.uint8), labels=LABELS)
    dataset = load(path)
    assert dataset.image_shape == (8, 8, 3)
    np.testing.assert_array_equal(dataset.train_images[0, :, 0, 0], [0, 0, 9, 9, 9, 9, 0, 0])
    assert load(path, 16).image_shape == (16, 16, 3)


@pytest.mark.usefixtures("without_jaxtyping")
@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": LABELS}, "has no images, only labels; expected train_images"),
        ({"train_images": IMAGES, "train_labels": LABELS}, "has no test_images, only train_images"),
        ({"images": IMAGES / 255, "labels": LABELS}, "images of .*npz must be uint8 in 0 to 255"),
        ({"images": IMAGES[0], "labels": LABELS}, r"images of .*npz must be \(examples, height"),
        ({"images": IMAGES, "labels": LABELS[1:]}, r"labels of .*npz must have shape \(40,\)"),
        ({"images": IMAGES, "labels": LABELS / 1}, "labels of .*npz must be integers"),
        ({"images": IMAGES, "labels": LABELS - 2}, r"labels of .*npz must be -1 .* got -2"),
        ({"images": IMAGES, "labels": 0 * LABELS}, "npz has 1 classes and labels up to 0"),
        (
            {"images": IMAGES, "labels": LABELS + 2, "class_names": ["a", "b"]},
            "npz has 2 classes and labels up to 3",
        ),
        (
            {"images": np.zeros((40, 8, 8, 2), np.uint8), "labels": LABELS},
            "images of .*npz must have 1 or 3 channels, got 2",
        ),
        (
            {"images": np.array([IMAGES[0], IMAGES[0, :3]] * 20, object), "labels": LABELS},
            "npz can't be read: Object arrays .*; all images must have one size",
        ),
        ({"images": IMAGES * 1j, "labels": LABELS}, "images of .*npz .* got complex128"),
        ({"images": IMAGES > 9, "labels": LABELS}, "images of .*npz .* got bool"),
        ({"images": IMAGES.astype(str), "labels": LABELS}, "images of .*npz .* got <U3"),
        ({"images": IMAGES.astype(">i2"), "labels": LABELS}, "images of .*npz .* got >i2"),
        ({"images": np.uint8(3), "labels": LABELS}, r"images of .*npz must be .* got shape \(\)"),
        ({"images": IMAGES[:, :0], "labels": LABELS}, r"images of .*npz must not be empty"),
        (
            {"images": np.zeros(40, [("a", "u1")]), "labels": LABELS},
            r"images must be an array of numbers or text, got \[\('a', 'u1'\)\]",
        ),
        ({"images": IMAGES, "labels": LABELS > 0}, "labels of .*npz must be integers, got bool"),
        ({"images": IMAGES, "labels": LABELS[:, None]}, r"labels of .*npz .* got \(40, 1\)"),
        ({"images": IMAGES, "labels": np.int32(1)}, r"labels of .*npz .* got \(\)"),
        (
            {"images": IMAGES, "labels": LABELS.astype(np.uint64) << np.uint64(63)},
            "labels of .*npz must be below 100,000, got 9223372036854775808",
        ),
        ({"images": IMAGES, "labels": LABELS - 2**32}, "labels of .*npz .* got -4294967296"),
        (
            {"images": IMAGES, "labels": LABELS, "class_names": [["a"], ["b"]]},
            r"class_names of .*npz must be text of shape \(classes,\), got <U1 of shape \(2, 1\)",
        ),
        ({"images": IMAGES, "labels": LABELS, "class_names": "ab"}, r"of shape \(\)"),
        ({"images": IMAGES, "labels": LABELS, "class_names": [3, 8]}, "class_names .* got int64"),
        ({"images": IMAGES, "labels": LABELS, "class_names": [b"a", b"b"]}, "got |S1"),
        (
            {"images": IMAGES, "labels": LABELS, "class_names": ["a", "\x1b[2J"]},
            r"class_names of .*npz must be printable, .* got '\\x1b\[2J'",
        ),
        (
            {"images": IMAGES, "labels": LABELS, "class_names": ["a", "a"]},
            "class_names of .*npz must be unique, got 'a' twice",
        ),
    ],
)
@pytest.mark.fault(
    "data files",
    "npz arrays of another rank, type, length or range",
    "refused, naming the file and the array",
)
def test_rejects_invalid_arrays(path, arrays, message):
    save(path, **arrays)
    with pytest.raises(ValueError, match=message):
        load(path)


@pytest.mark.parametrize("dtype", [">i4", "u1", "<u8"])
def test_reads_every_order_of_bytes_and_axes(path, dtype):
    expected = load(save(path, images=IMAGES, labels=LABELS))
    dataset = load(save(path, images=np.asfortranarray(IMAGES), labels=LABELS.astype(dtype)))
    assert dataset.fingerprint == expected.fingerprint


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_reads_every_compression(path, method):
    save(path, images=IMAGES, labels=LABELS)
    expected = load(path).fingerprint
    rewrite(path, lambda name, content: {name: content}, method)
    assert load(path).fingerprint == expected


def test_warns_of_ignored_arrays(path, caplog):
    load(save(path, images=IMAGES, labels=LABELS, class_name=["a", "b"]))
    assert "more arrays, which are ignored: ['class_name']" in caplog.messages[0]


def rewrite(path, change, method=zipfile.ZIP_STORED):
    """Rewrites a zip archive; ``change`` maps the name and content of a member to new ones."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            for new_name, new_content in change(name, content).items():
                archive.writestr(new_name, new_content)


def claim_terabytes(path):
    """The header of the images claims 10**12 of them."""

    def change(name, content):
        if name == "images.npy":
            content = content.replace(b"(40, 8, 8), }" + b" " * 11, b"(1000000000000, 8, 8), }")
            assert b"1000000000000" in content
        return {name: content}

    rewrite(path, change)


def claim_terabytes_twice(path):
    """The zip archive claims them too."""
    claim_terabytes(path)
    content = bytearray(path.read_bytes())
    size = IMAGES.nbytes + 128
    field = content.index(size.to_bytes(4, "little") * 2, content.index(b"PK\x01\x02")) + 4
    content[field : field + 4] = bytes([0xFE, 255, 255, 255])
    path.write_bytes(content)


def encrypt(path):
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the encryption flag, in the local and the central header
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)


def set_method(method):
    def set_in(path):
        content = bytearray(path.read_bytes())
        content[8] = method
        content[content.index(b"PK\x01\x02") + 10] = method
        path.write_bytes(content)

    return set_in


def replace_images(content):
    return lambda path: rewrite(
        path, lambda name, old: {name: content if name == "images.npy" else old}
    )


def duplicate(path):
    rewrite(path, lambda name, content: {name: content, name.removesuffix(".npy"): content})


def nest(path):
    rewrite(path, lambda name, content: {f"data/{name}": content})


def header(text):
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def make_fifo(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.fault(
    "data files",
    "npz members that are encrypted, doubled, nested, no arrays, or claim terabytes",
    "refused before allocation, naming the file and the array",
)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (claim_terabytes, r"images claims 64,000,000,000,000 bytes, uint8 .* but it has 2,560"),
        (claim_terabytes_twice, "images claims 64,000,000,000,000 bytes, uint8 .* but it has"),
        (encrypt, "images is encrypted"),
        (set_method(97), "images: That compression method is not supported"),
        (set_method(zipfile.ZIP_LZMA), "images: "),
        (set_method(zipfile.ZIP_BZIP2), "images: Invalid data stream"),
        (replace_images(b"some text"), "images isn't an array"),
        (replace_images(b""), "images isn't an array"),
        (replace_images(header(b"[")), "images: |Cannot parse header"),
        (replace_images(header(b"-" * 9000 + b"1")), "images: "),
        (replace_images(b"\x93NUMPY\x03\x00" + bytes(99)), r"the unknown format \(3, 0\)"),
        (
            replace_images(header(b"{'descr':'<U0','fortran_order':False,'shape':(9,)}")),
            "images must be an array of numbers or text, got <U0",
        ),
        (
            replace_images(header(b"{'descr':'|u1','fortran_order':False,'shape':(-1,)}")),
            "images claims -1 bytes",
        ),
        (duplicate, "it contains 'images' twice"),
        (nest, "it has no images, only data/images, data/labels"),
        (make_fifo, "is not a regular file"),
    ],
)
def test_reports_invalid_members(path, damage, message):
    save(path, images=IMAGES, labels=LABELS)
    damage(path)
    with pytest.raises(ValueError, match=message) as error:
        load(path)
    assert str(path) in str(error.value)


@pytest.mark.fault(
    "data files", "npz that decompresses beyond the memory", "refused before it is decompressed"
)
def test_reports_decompression_bombs(path, monkeypatch):
    np.savez_compressed(path, images=np.zeros((400, 100, 50), np.uint8), labels=np.arange(400) % 2)
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(Dataset, "resized", lambda self, _: self)
    size = 2_000_000 + 400 * 8 + 2 * 128
    for limit, message in [
        (size - 1, r"mine\.npz can't be read: reading 2,003,456 bytes of arrays needs about"),
        (12_000_000 - 1, r"padding images of .*mine\.npz to 100 x 100 pixels needs about"),
    ]:
        monkeypatch.setattr(memory, "memory_limit", lambda limit=limit: limit)
        with pytest.raises(ValueError, match=message):
            load(path)
    monkeypatch.setattr(memory, "memory_limit", lambda: 12_000_000)
    assert load(path).image_shape == (100, 100, 1)
    # Square images aren't padded, but copied when they are split.
    np.savez_compressed(path, images=np.zeros((400, 100, 100), np.uint8), labels=np.arange(400) % 2)
    monkeypatch.setattr(memory, "memory_limit", lambda: 8_000_000 - 1)
    with pytest.raises(ValueError, match=r"splitting the 4,000,000 bytes of images of .*needs"):
        load(path)


@pytest.mark.fault(
    "data files", "npz of narrow images that exceed the memory as squares", "refused before padding"
)
def test_reports_images_too_large_to_pad(path):
    save(path, images=np.zeros((40, 10**5, 1), np.uint8), labels=LABELS)
    with pytest.raises(ValueError, match=r"padding images of .*npz to 100,000 x 100,000"):
        load(path)


@pytest.mark.fault("data files", "truncated npz", "refused, naming the file")
@pytest.mark.parametrize("length", [0, 100, 0.5])
def test_reports_truncated_files(path, length):
    content = save(path, images=IMAGES, labels=LABELS).read_bytes()
    path.write_bytes(content[: length if length > 1 else int(length * len(content))])
    with pytest.raises(ValueError, match=r"mine\.npz can't be read: "):
        load(path)


def test_reports_missing_files(path):
    with pytest.raises(FileNotFoundError, match=r"mine\.npz"):
        load(path)

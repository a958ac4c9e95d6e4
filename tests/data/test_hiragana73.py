"""hiragana73 in every archive format, from small synthetic archives and a full-size one."""

import io
import logging
import time
import zipfile

import numpy as np
import PIL.Image
import pytest
from helpers import encode_image, stroke_image, write_tar, write_zip

from jvae_jax import data, memory
from jvae_jax.data import cache, hiragana73
from jvae_jax.data.hiragana73 import Hiragana73
from jvae_jax.data.images import decode_images

NAMES = Hiragana73.class_names


def make_files(per_class=3):
    """Image files of the 73 characters, in a folder each, with ink of different brightness."""
    return {
        f"hiragana73/U{ord(name):04X}/19{index}0_ふ_{index:04}.png": encode_image(
            stroke_image(ink=label, background=200 + index)
        )
        for label, name in enumerate(NAMES)
        for index in range(per_class)
    }


def load(folder):
    return data.load("hiragana73", folder, image_size=8)


def write_as_zip(folder):
    write_zip(folder / "hiragana73.zip", make_files())


def write_as_tar(folder):
    write_tar(folder / "hiragana73.tar.gz", dict(reversed(make_files().items())))


def write_as_parts(folder):
    (folder / "hiragana73").mkdir()
    for part in range(4):
        files = dict(list(make_files().items())[part::4])
        write_zip(folder / "hiragana73" / f"hiragana73_{part}.zip", files)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with the zip archive, and the dataset loaded from it."""
    folder = tmp_path_factory.mktemp("zip")
    write_as_zip(folder)
    return folder, load(folder)


def test_loads_73_classes_with_bright_ink(prepared):
    folder, dataset = prepared
    assert len(dataset.class_names) == len(set(dataset.class_names)) == 73
    assert dataset.class_names[:3] == ("あ", "い", "う")
    assert dataset.class_names[-1] == "ん"
    np.testing.assert_array_equal(np.bincount(dataset.train_labels), [2] * 73)
    np.testing.assert_array_equal(np.bincount(dataset.test_labels), [1] * 73)
    # The bright background became dark; the ink's contrast still decreases from あ to ん.
    assert dataset.train_images[:, 0, 0].max() <= 55
    ink = [dataset.train_images[dataset.train_labels == label].max() for label in (0, 36, 72)]
    assert ink[0] > ink[1] > ink[2] > 100
    assert (folder / "hiragana73_8x8.npz").exists()
    assert (folder / "jvae_images" / "hiragana73_8x8" / "1.0.0" / "dataset_info.json").exists()


@pytest.mark.parametrize("write", [write_as_tar, write_as_parts])
def test_archive_formats_are_equivalent(write, prepared, tmp_path):
    write(tmp_path)
    assert load(tmp_path).fingerprint == prepared[1].fingerprint


def test_counts_images_of_zip_archives_before_reading_them(tmp_path, monkeypatch):
    counts = []

    def spy(images, *args, count, **options):
        counts.append(count)
        return decode_images(images, *args, count=count, **options)

    monkeypatch.setattr(hiragana73, "decode_images", spy)
    write_as_parts(tmp_path)
    load(tmp_path)
    assert counts == [3 * 73]


def test_large_archives_are_prepared_without_tensorflow_datasets(prepared, tmp_path, monkeypatch):
    """Which would hold them in memory, or need TensorFlow; here everything is on disk."""
    monkeypatch.setattr(cache, "CACHE_DIR", tmp_path / "cache")
    monkeypatch.setattr(memory, "LARGE_BYTES", 4000)
    monkeypatch.setattr("tensorflow_datasets.core.shuffle.MAX_MEM_BUFFER_SIZE", 1000, raising=False)
    write_as_zip(tmp_path)
    for _ in range(2):
        dataset = load(tmp_path)
        assert dataset.fingerprint == prepared[1].fingerprint
        assert isinstance(dataset.train_images.base, np.memmap)
        assert isinstance(dataset.test_images.base, np.memmap)


def test_prepares_changed_archives_again(prepared, tmp_path):
    write_as_zip(tmp_path)
    assert load(tmp_path).fingerprint == prepared[1].fingerprint
    write_zip(tmp_path / "hiragana73.zip", make_files(per_class=4))
    assert len(load(tmp_path).train_labels) == 3 * 73


@pytest.mark.fault(
    "data files",
    "images that are truncated, of another format, or decompression bombs",
    "skipped and reported",
)
def test_warns_of_unreadable_images_on_every_load(tmp_path, caplog):
    bad = {"hiragana73/U3042/bad.png": b"bad", "hiragana73/README.txt": b"not an image"}
    write_zip(tmp_path / "hiragana73.zip", make_files() | bad)
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="jvae_jax"):
            dataset = load(tmp_path)
        assert len(dataset.train_labels) == 2 * 73
        assert "skipped 1 of 220 images as unreadable: U3042/bad.png" in caplog.messages[0]


@pytest.mark.fault("data files", "split archive without all parts", "refused, naming the class")
def test_reports_missing_parts(tmp_path):
    write_as_parts(tmp_path)
    incomplete = {name: content for name, content in make_files().items() if "U3042" not in name}
    for part in (tmp_path / "hiragana73").iterdir():
        write_zip(part, incomplete)
    message = r"_3\.zip \(all parts of a split archive are required\): cl"
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def require_later_version(path):
    """Of the reader, by the first file of the archive's directory."""
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 99
    path.write_bytes(content)


@pytest.mark.fault(
    "data files", "archive that is truncated, flipped or encrypted", "refused, naming the file"
)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), r"73\.zip is damaged"),
        (
            lambda path: write_zip(path, make_files() | {"../x": b""}),
            r"73\.zip is rejected: its member \.\./x",
        ),
        (require_later_version, r"73\.zip is damaged \(zip file version 9\.9\)"),
        (lambda path: write_zip(path, {}), r"73\.zip: class あ has no readable image"),
    ],
)
def test_reports_bad_archives_and_writes_no_cache(damage, message, prepared, tmp_path):
    write_as_zip(tmp_path)
    damage(tmp_path / "hiragana73.zip")
    with pytest.raises(ValueError, match=message):
        load(tmp_path)
    assert not (tmp_path / "hiragana73_8x8.npz").exists()
    write_as_zip(tmp_path)
    assert load(tmp_path).fingerprint == prepared[1].fingerprint


@pytest.mark.long
def test_prepares_the_full_size_archive_in_few_times_the_decoding(hiragana73_files):
    """In processor time, which no other process prolongs; the cache loads in less than a second."""
    import tensorflow_datasets  # noqa: F401  # its import isn't counted

    started = time.process_time()
    with zipfile.ZipFile(hiragana73_files / "hiragana73.zip") as archive:
        for name in archive.namelist():
            if name.endswith(".png"):
                image = PIL.Image.open(io.BytesIO(archive.read(name))).convert("L")
                np.asarray(image.resize((32, 32), PIL.Image.Resampling.LANCZOS))
    decoding = time.process_time() - started
    started = time.process_time()
    first = data.load("hiragana73", hiragana73_files)
    assert time.process_time() - started < 6 * decoding
    started = time.monotonic()
    again = data.load("hiragana73", hiragana73_files)
    assert time.monotonic() - started < 1
    assert again.fingerprint == first.fingerprint
    counts = np.bincount(first.train_labels), np.bincount(first.test_labels)
    np.testing.assert_array_equal(counts[1], np.round((counts[0] + counts[1]) / 10))
    # Polarity: the brightest pixel differs more from the border than the darkest one.
    for images in (first.train_images, first.test_images):
        border = np.median(images[:, [0, -1]].reshape(len(images), -1), axis=1)
        assert (images.max(axis=(1, 2, 3)) - border > border - images.min(axis=(1, 2, 3))).all()

"""Image folders: layouts, caching and invalid content."""

import errno
import hashlib
import io
import logging
import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import encode_image, file_size_limit, stroke_image
from PIL import Image

from jvae_jax import data, files, memory
from jvae_jax.data import cache, image_folder, images


@pytest.fixture(autouse=True)
def cache_dir(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "CACHE_DIR", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def _log_level(caplog):
    caplog.set_level(logging.INFO, logger="jvae_jax")


def fill(folder, count=10, ink=0, size=(16, 16)):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        image = stroke_image(size, ink=ink + index)
        (folder / f"{index}.png").write_bytes(encode_image(image))
    return folder


@pytest.fixture
def root(tmp_path):
    fill(tmp_path / "mine" / "a")
    fill(tmp_path / "mine" / "b", ink=60)
    return tmp_path / "mine"


def load(root, image_size=16):
    return data.load("folder", root, image_size=image_size)


def test_large_folders_are_prepared_on_disk(root, cache_dir, monkeypatch):
    """Their arrays are mapped from the cache file, and equal those in memory."""
    in_memory = load(root)
    for written in cache_dir.rglob("*.npz"):
        written.unlink()
    monkeypatch.setattr(memory, "LARGE_BYTES", 1000)
    monkeypatch.setattr(images, "_at_a_time", lambda _size: 4)
    selected = []
    select = images.DecodedImages.images
    monkeypatch.setattr(
        images.DecodedImages,
        "images",
        lambda self, chosen: selected.append(select(self, chosen)) or selected[-1],
    )
    on_disk = load(root)
    assert [isinstance(array, np.memmap) for array in selected] == [True, False]  # test: 2 images
    assert isinstance(on_disk.train_images.base, np.memmap)
    assert on_disk.fingerprint == in_memory.fingerprint
    assert {path.suffix for path in (cache_dir / "folders").iterdir()} == {".lock", ".npz"}


@pytest.mark.fault("data files", "pictures that exceed the free disk", "refused beforehand")
def test_requires_the_disk_of_large_folders(root, monkeypatch):
    monkeypatch.setattr(memory, "LARGE_BYTES", 1000)
    monkeypatch.setattr(images, "_at_a_time", lambda _size: 4)
    room, written = 15_359, 0

    def disk_usage(_path):
        return SimpleNamespace(free=room - (written if written > 1000 else 0))

    def write(self, array):
        nonlocal written
        written += array.size
        original(self, array)

    original = images._Spool.write
    monkeypatch.setattr(images._Spool, "write", write)
    monkeypatch.setattr(images.shutil, "disk_usage", disk_usage)
    message = r"mine: decoding images of 16 x 16 pixels needs about 0\.0 GiB of disk in .*, more"
    with pytest.raises(ValueError, match=message):  # 20 pictures of 256 bytes, three times
        load(root)
    assert not written
    room = 15_360
    load(root)


def test_requires_the_disk_of_colour(root, monkeypatch):
    """Once the first coloured picture is seen."""
    monkeypatch.setattr(memory, "LARGE_BYTES", 1000)
    monkeypatch.setattr(images, "_at_a_time", lambda _size: 4)
    (root / "a" / "0.png").write_bytes(encode_image(Image.new("RGB", (16, 16), "red")))
    monkeypatch.setattr(images.shutil, "disk_usage", lambda _path: SimpleNamespace(free=40_000))
    decoded = []
    decode = images._try_decode
    monkeypatch.setattr(
        images,
        "_try_decode",
        lambda image, *a, **k: decoded.append(image) or decode(image, *a, **k),
    )
    with pytest.raises(ValueError, match=r"needs about .* GiB of disk"):
        load(root)
    assert len(decoded) == 4  # a chunk


@pytest.mark.fault("data files", "disk that fills while pictures are decoded", "one line")
def test_names_the_folder_of_the_full_disk(root, cache_dir, monkeypatch):
    monkeypatch.setattr(memory, "LARGE_BYTES", 1000)
    with file_size_limit(2000), pytest.raises(OSError, match=re.escape(str(cache_dir))):
        load(root)
    assert not [*cache_dir.rglob("*.npz")]


def test_sub_folders_are_classes(root, caplog):
    fill(root / "い", count=20)
    (root / ".hidden").mkdir()
    (root / "notes.txt").write_text("not an image, and not in a class folder")
    (root / "a" / ".DS_Store").write_text("")
    dataset = load(root)
    assert dataset.class_names == ("a", "b", "い")
    np.testing.assert_array_equal(np.bincount(dataset.train_labels), [9, 9, 18])
    np.testing.assert_array_equal(np.bincount(dataset.test_labels), [1, 1, 2])
    assert dataset.image_shape == (16, 16, 1)
    assert dataset.train_images[:, 0, 0].max() == 0  # the white background became dark
    assert caplog.messages == [
        f"data: folder, 36 train and 4 test images of 3 classes, from {root}"
    ]


def test_classes_and_split_are_the_same_on_every_system(tmp_path):
    """Windows ignores case and separates with a backslash; a Mac may decompose the é."""
    for name in ("b", "A", "e\u0301", "z"):
        fill(tmp_path / "mine" / name)
    dataset = load(tmp_path / "mine")
    assert dataset.class_names == ("A", "b", "z", "é")
    for name, image in zip(dataset.class_names, dataset.test_images, strict=True):
        hashes = [hashlib.sha256(f"{name}/{index}.png".encode()).digest() for index in range(10)]
        assert image.max() == 255 - hashes.index(min(hashes))


def test_unlabelled_images_are_for_training_only(root):
    fill(root / "unlabelled", count=30)
    dataset = load(root)
    assert dataset.class_names == ("a", "b")
    assert (dataset.train_labels == -1).sum() == 30
    assert (dataset.test_labels >= 0).all()


@pytest.mark.parametrize("unlabelled", ["unlabelled", "train/unlabelled"])
def test_train_and_test_folders_define_the_split(root, unlabelled):
    for name in "ab":
        (root / "train").mkdir(exist_ok=True)
        (root / name).rename(root / "train" / name)
        fill(root / "test" / name, count=3, ink=200)
    fill(root / unlabelled, count=4)
    dataset = load(root)
    np.testing.assert_array_equal(np.bincount(dataset.train_labels + 1), [4, 10, 10])
    np.testing.assert_array_equal(np.bincount(dataset.test_labels), [3, 3])
    assert dataset.test_images.max() < 60 < dataset.train_images.max()


def test_image_sizes_may_differ(root):
    fill(root / "c", size=(40, 9))
    dataset = load(root)
    assert dataset.train_images.shape == (27, 16, 16, 1)


def test_caches_outside_the_folder_until_a_file_changes(root, cache_dir, caplog):
    (root / "a" / "bad.png").write_bytes(b"bad")
    before = sorted(root.rglob("*"))
    first = load(root)
    messages = caplog.messages
    assert sorted(root.rglob("*")) == before
    (cached,) = (cache_dir / "folders").glob("*.npz")
    written = cached.stat().st_mtime_ns
    caplog.clear()
    again = load(root)
    assert cached.stat().st_mtime_ns == written
    assert again.fingerprint == first.fingerprint
    assert caplog.messages == messages
    assert "skipped 1 of 21 images as unreadable" in messages[0]

    changed = root / "a" / "0.png"
    changed.write_bytes(encode_image(stroke_image(ink=33)))
    os.utime(changed, (time.time(), time.time() + 5))
    assert load(root).fingerprint != first.fingerprint
    changed.write_bytes(encode_image(stroke_image(ink=0)))
    os.utime(changed, (time.time(), time.time() + 9))
    assert load(root).fingerprint == first.fingerprint
    cached.write_bytes(cached.read_bytes()[:1000])
    assert load(root).fingerprint == first.fingerprint


@pytest.mark.fault("processes", "two prepare the same data at once", "the second waits, and reads")
def test_concurrent_loads_prepare_once(root, monkeypatch, caplog):
    prepare, prepared = image_folder._prepare, []
    is_waiting = threading.Event()

    def prepare_slowly(*args, **kwargs):
        prepared.append(args)
        assert is_waiting.wait(60)
        return prepare(*args, **kwargs)

    def emit(record):
        if "waiting for another process" in record.getMessage():
            is_waiting.set()

    monkeypatch.setattr(image_folder, "_prepare", prepare_slowly)
    monkeypatch.setattr(caplog.handler, "emit", emit)
    with ThreadPoolExecutor() as threads:
        datasets = list(threads.map(load, [root, root]))
    assert len(prepared) == 1
    assert datasets[0].fingerprint == datasets[1].fingerprint


@pytest.mark.fault(
    "environment", "cache folder that can't be written", "not cached, with a warning"
)
def test_loads_without_writable_lock(root, cache_dir, monkeypatch, caplog):
    def read_only(_path):
        raise PermissionError(errno.EROFS, "Read-only file system", str(cache_dir))

    monkeypatch.setattr(files, "FileLock", read_only)
    assert len(load(root).train_images) == 18
    assert "decoded images are not cached: " in caplog.messages[0]
    assert "Read-only file system" in caplog.messages[0]


@pytest.mark.fault("environment", "no home folder", "not cached, with a warning")
def test_loads_without_home(root, monkeypatch, caplog):
    monkeypatch.setattr(cache, "CACHE_DIR", Path("~no_such_user/cache"))
    assert len(load(root).train_images) == 18
    assert "decoded images are not cached: Could not determine home" in caplog.messages[0]


@pytest.mark.fault(
    "environment", "cache folder that can't be written", "not cached, with a warning"
)
def test_loads_without_writable_cache(root, cache_dir, caplog):
    cache_dir.write_text("a file instead of a folder")
    dataset = load(root)
    assert len(dataset.train_images) == 18
    assert "not cached" in caplog.messages[0]


def test_caches_each_image_size(root):
    load(root)
    assert load(root, image_size=8).image_shape == (8, 8, 1)


def test_preserves_colour(root, caplog):
    Image.new("RGB", (16, 16), (200, 0, 0)).save(root / "a" / "red.png")
    dataset = load(root)
    assert dataset.image_shape == (16, 16, 3)
    assert "1 of 21 images are coloured" in caplog.messages[0]


def empty_class(root):
    (root / "c").mkdir()


def single_class(root):
    (root / "b").rename(root.parent / "elsewhere")


def no_class(root):
    single_class(root)
    (root / "a").rename(root.parent / "also elsewhere")


def nested_folder(root):
    fill(root / "b" / "inner")


def link_cycle_in_class(root):
    (root / "b" / "loop").symlink_to(root)


def link_cycle_as_class(root):
    (root / "c").symlink_to(root)


def class_beside_train(root):
    fill(root / "train" / "a")


def unknown_test_class(root):
    (root / "train").mkdir()
    for name in "ab":
        (root / name).rename(root / "train" / name)
    fill(root / "test" / "c")


def all_unreadable(root):
    for path in (root / "b").iterdir():
        path.write_bytes(b"bad")


def unprintable_name(root):
    fill(root / os.fsdecode(b"\xff"))


def terminal_escape(root):
    fill(root / "\x1b[31mred")


def right_to_left(root):
    fill(root / "a\u202eb")


def comma(root):
    fill(root / "a,b")


def surrounding_space(root):
    fill(root / " a")


def doubled_accent(root):
    """Two folders on Linux, of one character, composed and decomposed."""
    fill(root / "\u304c")
    fill(root / "\u304b\u3099")


def one_image_per_class(root):
    for path in [*root.glob("*/[1-9].png")]:
        path.unlink()


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (one_image_per_class, "mine, has no test images"),
        (empty_class, "mine/c contains no images; add some or remove the folder"),
        (single_class, "mine contains only one class, a; expected two or more"),
        (no_class, "mine contains no class"),
        (nested_folder, "mine/b/inner is a folder within a class"),
        (link_cycle_in_class, "mine/b/loop is a folder within a class"),
        (link_cycle_as_class, "mine/c/a is a folder within a class"),
        (class_beside_train, "mine contains a folder train, so a can't be a class beside it"),
        (unknown_test_class, "mine/test/c is a class that train lacks"),
        (all_unreadable, r"mine: class b has no readable image; .*mine/b/0\.png"),
        (unprintable_name, r"folders in .*mine must be printable, .* got '\\udcff'"),
        (terminal_escape, r"folders in .*mine must be printable, .* got '\\x1b\[31mred'"),
        (right_to_left, r"folders in .*mine must be printable, .* got 'a\\u202eb'"),
        (comma, "folders in .*mine must be .* without commas .* got 'a,b'"),
        (surrounding_space, "folders in .*mine must be .* surrounding spaces, got ' a'"),
        (doubled_accent, "folders in .*mine must be unique, got 'が' twice"),
    ],
)
@pytest.mark.fault(
    "data files", "image folder of another layout or with unprintable names", "refused, uncached"
)
def test_reports_invalid_folders(root, cache_dir, corrupt, message):
    corrupt(root)
    with pytest.raises(ValueError, match=message):
        load(root)
    assert corrupt is one_image_per_class or not list(cache_dir.rglob("*.npz"))


def test_reports_missing_folders(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for name in ("none", "loop"):
        with pytest.raises(ValueError, match=f"there is no folder .*{name}; set --data_dir"):
            load(tmp_path / name)


@pytest.mark.fault("data files", "FIFO or device in the place of an image", "skipped and reported")
def test_skips_fifos(root, caplog):
    os.mkfifo(root / "a" / "fifo.png")
    assert len(load(root).train_images) == 18
    assert "a/fifo.png (not a regular file)" in caplog.messages[0]


@pytest.mark.fault("data files", "link cycle in the place of an image", "skipped and reported")
def test_skips_cyclic_symbolic_links(root, caplog):
    (root / "a" / "loop.png").symlink_to("loop.png")
    load(root)
    assert "a/loop.png (Too many levels of symbolic links)" in caplog.messages[0]


@pytest.mark.fault(
    "data files",
    "images that are truncated, of another format, or decompression bombs",
    "skipped and reported",
)
def test_skips_decompression_bombs(root, caplog):
    buffer = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(buffer, "png")
    (root / "a" / "bomb.png").write_bytes(buffer.getvalue())
    dataset = load(root)
    assert "a/bomb.png (Image size (100000000 pixels)" in caplog.messages[0]
    assert len(dataset.train_images) == 18

"""A folder of one's own pictures, and everything that can be wrong with it."""

import io
import os
import time

import numpy as np
import pytest
from helpers import character, encoded
from PIL import Image

from jvae_jax import data
from jvae_jax.data import cache


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "HOME", tmp_path / "home")
    return tmp_path / "home"


def fill(folder, count=10, ink=0, kind="png", size=(16, 16)):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        image = character(size, ink=ink + index)
        (folder / f"{index}.{kind}").write_bytes(encoded(image, kind))
    return folder


@pytest.fixture
def root(tmp_path):
    fill(tmp_path / "mine" / "a")
    fill(tmp_path / "mine" / "b", ink=60)
    return tmp_path / "mine"


def load(root, **options):
    said = []
    return data.load("folder", root, image_size=16, say=said.append, **options), said


def test_sub_folders_are_classes(root):
    fill(root / "い", count=20)
    (root / ".hidden").mkdir()
    (root / "notes.txt").write_text("no picture, and in no class")
    (root / "a" / ".DS_Store").write_text("")
    dataset, said = load(root)
    assert dataset.class_names == ("a", "b", "い")
    np.testing.assert_array_equal(np.bincount(dataset.train_labels), [9, 9, 18])
    np.testing.assert_array_equal(np.bincount(dataset.test_labels), [1, 1, 2])
    assert dataset.image_shape == (16, 16, 1)
    assert dataset.train_images[:, 0, 0].max() == 0  # white paper became dark
    assert said == [f"data: folder, 36 train and 4 test images of 3 classes, from {root}"]


def test_unlabelled_pictures_are_trained_on_only(root):
    fill(root / "unlabelled", count=30)
    dataset, _ = load(root)
    assert dataset.class_names == ("a", "b")
    assert (dataset.train_labels == -1).sum() == 30
    assert (dataset.test_labels >= 0).all()


@pytest.mark.parametrize("where", ["unlabelled", "train/unlabelled"])
def test_train_and_test_folders_are_honoured(root, where):
    for name in "ab":
        (root / "train").mkdir(exist_ok=True)
        (root / name).rename(root / "train" / name)
        fill(root / "test" / name, count=3, ink=200)
    fill(root / where, count=4)
    dataset, _ = load(root)
    np.testing.assert_array_equal(np.bincount(dataset.train_labels + 1), [4, 10, 10])
    np.testing.assert_array_equal(np.bincount(dataset.test_labels), [3, 3])
    assert dataset.test_images.max() < 60 < dataset.train_images.max()


def test_sizes_may_differ(root):
    fill(root / "c", size=(40, 9))
    dataset, _ = load(root)
    assert dataset.train_images.shape == (27, 16, 16, 1)


def test_what_is_prepared_is_kept_elsewhere_until_a_file_changes(root, home):
    (root / "a" / "bad.png").write_bytes(b"bad")
    before = sorted(root.rglob("*"))
    first, said = load(root)
    assert sorted(root.rglob("*")) == before
    (kept,) = (home / "folders").iterdir()
    made = kept.stat().st_mtime_ns
    again, said_again = load(root)
    assert kept.stat().st_mtime_ns == made
    assert again.fingerprint == first.fingerprint
    assert said_again == said
    assert "left out as unreadable, 1 of 21" in said[0]

    changed = root / "a" / "0.png"
    changed.write_bytes(encoded(character(ink=33)))
    os.utime(changed, (time.time(), time.time() + 5))
    assert load(root)[0].fingerprint != first.fingerprint
    changed.write_bytes(encoded(character(ink=0)))
    os.utime(changed, (time.time(), time.time() + 9))
    assert load(root)[0].fingerprint == first.fingerprint
    kept.write_bytes(kept.read_bytes()[:1000])
    assert load(root)[0].fingerprint == first.fingerprint


def test_a_cache_that_cannot_be_written_is_no_obstacle(root, home):
    home.write_text("a file, where the folder should be")
    dataset, said = load(root)
    assert len(dataset.train_images) == 18
    assert "not kept for the next start" in said[0]


def test_another_size_is_prepared_anew(root):
    load(root)
    said = []
    assert data.load("folder", root, image_size=8, say=said.append).image_shape == (8, 8, 1)


def test_colour_is_kept(root):
    Image.new("RGB", (16, 16), (200, 0, 0)).save(root / "a" / "red.png")
    dataset, said = load(root)
    assert dataset.image_shape == (16, 16, 3)
    assert "1 of 21 pictures are coloured" in said[0]


def empty(root):
    (root / "c").mkdir()


def only_one(root):
    (root / "b").rename(root.parent / "elsewhere")


def no_folders(root):
    only_one(root)
    (root / "a").rename(root.parent / "also elsewhere")


def nested(root):
    fill(root / "b" / "inner")


def loop(root):
    (root / "b" / "loop").symlink_to(root)


def class_loop(root):
    (root / "c").symlink_to(root)


def stray(root):
    fill(root / "train" / "a")


def unknown_class(root):
    (root / "train").mkdir()
    for name in "ab":
        (root / name).rename(root / "train" / name)
    fill(root / "test" / "c")


def all_unreadable(root):
    for path in (root / "b").iterdir():
        path.write_bytes(b"bad")


def no_text(root):
    fill(root / os.fsdecode(b"\xff"))


def one_each(root):
    for path in [*root.glob("*/[1-9].png")]:
        path.unlink()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (one_each, "mine, has no image to test with"),
        (empty, "mine/c holds no pictures; put some there, or remove the folder"),
        (only_one, "mine holds one class only, a; it takes two or more"),
        (no_folders, "mine holds no class"),
        (nested, "mine/b/inner is a folder within a class"),
        (loop, "mine/b/loop is a folder within a class"),
        (class_loop, "mine/c/a is a folder within a class"),
        (stray, "mine holds a folder train, so a can't be a class beside it"),
        (unknown_class, "mine/test/c is a class that train lacks"),
        (all_unreadable, r"mine: the class b has no picture that can be read; .*mine/b/0\.png"),
        (no_text, r"mine holds a folder whose name isn't text: '\\udcff'"),
    ],
)
def test_bad_folders_are_told(root, home, break_it, message):
    break_it(root)
    with pytest.raises(ValueError, match=message):
        load(root)
    assert break_it is one_each or not home.exists()


def test_a_missing_folder_is_told(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for name in ("none", "loop"):
        with pytest.raises(ValueError, match=f"there is no folder .*{name}; --data_dir"):
            load(tmp_path / name)


def test_a_symbolic_link_to_itself_is_left_out(root):
    (root / "a" / "loop.png").symlink_to("loop.png")
    _, said = load(root)
    assert "a/loop.png (Too many levels of symbolic links)" in said[0]


def test_a_decompression_bomb_is_left_out(root):
    buffer = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(buffer, "png")
    (root / "a" / "bomb.png").write_bytes(buffer.getvalue())
    dataset, said = load(root)
    assert "a/bomb.png (Image size (100000000 pixels)" in said[0]
    assert len(dataset.train_images) == 18

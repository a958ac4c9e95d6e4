"""hiragana73, in all of its forms: small archives of our own, and the stand-in where it is."""

import time

import numpy as np
import pytest
from helpers import character, encoded, write_tar, write_zip

from jvae_jax import data
from jvae_jax.data.hiragana73 import Hiragana73

NAMES = Hiragana73.class_names


def files(each=3):
    """Each of the 73 characters in its folder, with ink of its own."""
    return {
        f"hiragana73/U{ord(name):04X}/19{index}0_ふ_{index:04}.png": encoded(
            character(ink=label, paper=200 + index)
        )
        for label, name in enumerate(NAMES)
        for index in range(each)
    }


def load(folder, **options):
    said = []
    return data.load("hiragana73", folder, image_size=8, say=said.append, **options), said


def as_zip(folder):
    write_zip(folder / "hiragana73.zip", files())


def as_tar(folder):
    write_tar(folder / "hiragana73.tar.gz", dict(reversed(files().items())))


def as_parts(folder):
    (folder / "hiragana73").mkdir()
    for part in range(4):
        some = dict(list(files().items())[part::4])
        write_zip(folder / "hiragana73" / f"hiragana73_{part}.zip", some)


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zip")
    as_zip(folder)
    return folder, load(folder)[0]


def test_classes_are_the_characters(usual):
    folder, dataset = usual
    assert len(dataset.class_names) == len(set(dataset.class_names)) == 73
    assert dataset.class_names[:3] == ("あ", "い", "う")
    assert dataset.class_names[-1] == "ん"
    np.testing.assert_array_equal(np.bincount(dataset.train_labels), [2] * 73)
    np.testing.assert_array_equal(np.bincount(dataset.test_labels), [1] * 73)
    # Paper that was bright is dark, and ink that grew fainter from あ to ん still does.
    assert dataset.train_images[:, 0, 0].max() <= 55
    ink = [dataset.train_images[dataset.train_labels == label].max() for label in (0, 36, 72)]
    assert ink[0] > ink[1] > ink[2] > 100
    assert (folder / "hiragana73_8x8.npz").exists()
    assert (folder / "jvae_images" / "hiragana73_8x8" / "1.0.0" / "dataset_info.json").exists()


@pytest.mark.parametrize("form", [as_tar, as_parts])
def test_every_form_of_the_archive_holds_the_same(form, usual, tmp_path):
    form(tmp_path)
    assert load(tmp_path)[0].fingerprint == usual[1].fingerprint


def test_another_archive_is_prepared_anew(usual, tmp_path):
    as_zip(tmp_path)
    assert load(tmp_path)[0].fingerprint == usual[1].fingerprint
    write_zip(tmp_path / "hiragana73.zip", files(each=4))
    assert len(load(tmp_path)[0].train_labels) == 3 * 73


def test_unreadable_pictures_are_counted_on_every_load(tmp_path):
    bad = {"hiragana73/U3042/bad.png": b"bad", "hiragana73/README.txt": b"no picture"}
    write_zip(tmp_path / "hiragana73.zip", files() | bad)
    for _ in range(2):
        dataset, said = load(tmp_path)
        assert len(dataset.train_labels) == 2 * 73
        assert "left out as unreadable, 1 of 220 pictures: U3042/bad.png" in said[0]


def test_a_missing_part_is_told(tmp_path):
    as_parts(tmp_path)
    few = {name: content for name, content in files().items() if "U3042" not in name}
    for part in (tmp_path / "hiragana73").iterdir():
        write_zip(part, few)
    with pytest.raises(
        ValueError, match=r"_3\.zip \(of several parts, all must be there\): the cl"
    ):
        load(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), r"73\.zip is damaged"),
        (
            lambda path: write_zip(path, files() | {"../x": b""}),
            r"73\.zip is refused: \.\./x in it",
        ),
        (lambda path: write_zip(path, {}), r"73\.zip: the class あ has no picture"),
    ],
)
def test_a_bad_archive_is_told_and_leaves_nothing_behind(damage, message, usual, tmp_path):
    as_zip(tmp_path)
    damage(tmp_path / "hiragana73.zip")
    with pytest.raises(ValueError, match=message):
        load(tmp_path)
    assert not (tmp_path / "hiragana73_8x8.npz").exists()
    as_zip(tmp_path)
    assert load(tmp_path)[0].fingerprint == usual[1].fingerprint


@pytest.mark.long
def test_the_whole_archive_is_prepared_quickly(stand_in):
    """At a rate of 73 x 1,100 images a minute; then it loads in under a second."""
    started = time.monotonic()
    first = data.load("hiragana73", stand_in)
    seconds = time.monotonic() - started
    images = len(first.train_labels) + len(first.test_labels)
    assert seconds < 60 * images / (73 * 1100) + 5  # five for importing tensorflow-datasets
    started = time.monotonic()
    again = data.load("hiragana73", stand_in)
    assert time.monotonic() - started < 1
    assert again.fingerprint == first.fingerprint
    counts = np.bincount(first.train_labels), np.bincount(first.test_labels)
    np.testing.assert_array_equal(counts[1], np.round((counts[0] + counts[1]) / 10))
    # Ink is bright and paper dark in every picture: the border is darker than the brightest ink.
    for images in (first.train_images, first.test_images):
        border = np.median(images[:, [0, -1]].reshape(len(images), -1), axis=1)
        assert (images.max(axis=(1, 2, 3)) - border > border - images.min(axis=(1, 2, 3))).all()

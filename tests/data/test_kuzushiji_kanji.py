"""Kuzushiji-Kanji, from a small archive of the released layout."""

import numpy as np
import pytest
from helpers import encode_image, stroke_image, write_tar

from jvae_jax import data
from jvae_jax.data import preparation


@pytest.fixture
def archive(tmp_path):
    """Four images of 木, three of 日 and one of 﨑, with bright ink, and another file."""
    files = {"kkanji2/readme.txt": b"cursive"}
    for folder, count in (("U+6728", 4), ("U+65E5", 3), ("U+FA11", 1)):
        for index in range(count):
            image = stroke_image((64, 64), ink=255 - index, background=0)
            files[f"kkanji2/{folder}/{index:03}.png"] = encode_image(image)
    return write_tar(tmp_path / "kkanji.tar", files)


def test_classes_are_the_folders(archive, monkeypatch, caplog):
    dataset = data.load("kuzushiji_kanji", archive.parent)
    assert "kkanji.tar holds 8 of the 140,424 released images" in caplog.text
    assert dataset.class_names == ("日", "木", "\ufa11")
    assert dataset.image_shape == (32, 32, 1)
    assert np.bincount(dataset.train_labels).tolist() == [2, 3, 1]
    assert np.bincount(dataset.test_labels, minlength=3).tolist() == [1, 1, 0]
    assert np.median(dataset.train_images) == 0
    assert dataset.train_images.max() > 200
    archive.unlink()
    monkeypatch.setattr(preparation, "connection_failure", lambda _url: "no network")
    again = data.load("kuzushiji_kanji", archive.parent)
    assert (again.class_names, again.fingerprint) == (dataset.class_names, dataset.fingerprint)


def test_rejects_another_archive(tmp_path):
    write_tar(tmp_path / "kkanji.tar", {"kkanji2/readme.txt": b"cursive"})
    with pytest.raises(
        ValueError, match=r"kkanji\.tar contains no folder of images such as U\+5275"
    ):
        data.load("kuzushiji_kanji", tmp_path)

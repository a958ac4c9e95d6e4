"""What a Dataset checks, and which one ``load`` takes."""

import http.server
import time

import numpy as np
import pytest
from helpers import make_dataset
from PIL import Image

from jvae_jax import data
from jvae_jax.data import Dataset, preparation
from jvae_jax.data.mnist_5k import mnist_5k


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(preparation, "unreachable", lambda _url: "no network")


def test_the_embedded_digits_are_stratified():
    dataset = mnist_5k()
    assert dataset.train_images.shape == (4000, 28, 28, 1)
    assert dataset.test_images.shape == (1000, 28, 28, 1)
    np.testing.assert_array_equal(np.bincount(dataset.train_labels), 400)
    np.testing.assert_array_equal(np.bincount(dataset.test_labels), 100)
    flat = dataset.train_images.reshape(4000, -1)
    assert (
        len(np.unique(np.concatenate([flat, dataset.test_images.reshape(1000, -1)]), axis=0)) > 4990
    )


@pytest.mark.parametrize("size", [32, 16, 64])
def test_resizing_is_pillows_bilinear(size):
    dataset = mnist_5k()
    found = dataset.resized(size)
    for index in (0, 1234, 3999):
        image = Image.fromarray(dataset.train_images[index, :, :, 0])
        expected = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR), int)
        assert np.abs(found.train_images[index, :, :, 0] - expected).max() <= 1
    np.testing.assert_array_equal(found.train_labels, dataset.train_labels)


def test_fingerprints_tell_data_apart():
    first, same = make_dataset(), make_dataset(name="other name")
    assert first.fingerprint == same.fingerprint
    assert first.fingerprint != make_dataset(seed=1).fingerprint
    relabelled = make_dataset()
    relabelled.train_labels[0] = 1
    assert relabelled.fingerprint != first.fingerprint


@pytest.mark.usefixtures("without_jaxtyping")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"train_images": np.zeros((48, 8, 8), np.uint8)},
            r"train images must be \(examples, height",
        ),
        (
            {"train_images": np.zeros((48, 8, 8, 1))},
            "must be uint8 in 0 to 255, got float64 in 0 to 0",
        ),
        ({"train_images": np.full((48, 8, 8, 1), 300, np.int32)}, "got int32 in 300 to 300"),
        ({"train_labels": np.zeros(47, np.int32)}, r"one for each of 48 images, got \(47,\)"),
        ({"train_labels": np.zeros(48)}, "train labels must be signed integers, got float64"),
        ({"train_labels": np.full(48, 3, np.int32)}, r"-1 \(unlabelled\) or 0 to 2, got 3"),
        ({"test_labels": np.full(20, -2, np.int32)}, "test labels must be -1 .* got -2"),
        ({"test_images": np.zeros((20, 8, 16, 1), np.uint8)}, "they must have one shape"),
    ],
)
def test_bad_arrays_are_told(change, message):
    good = make_dataset()
    arrays = {
        name: getattr(good, name)
        for name in ("train_images", "train_labels", "test_images", "test_labels")
    }
    with pytest.raises(ValueError, match=message):
        Dataset(name="bad", class_names=("a", "b", "c"), **{**arrays, **change})


@pytest.mark.usefixtures("offline")
def test_auto_takes_the_embedded_digits_where_nothing_else_is(tmp_path):
    said = []
    dataset = data.load("auto", tmp_path / "new", say=said.append)
    assert dataset.name == "mnist_5k"
    assert dataset.image_shape == (32, 32, 1)
    assert len(said) == 1
    assert said[0].startswith("data: mnist_5k, 4,000 train and 1,000 test images of 10 classes")
    assert "no network" in said[0]
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("offline")
def test_mnist_is_strict(tmp_path):
    with pytest.raises(ConnectionError, match=r"can't be downloaded \(no network\)"):
        data.load("mnist", tmp_path)


def test_unknown_names_are_told(tmp_path):
    message = r"unknown data set 'minst' \(did you mean mnist\?\); there are auto, mnist_5k, mnist,"
    with pytest.raises(ValueError, match=message):
        data.load("minst", tmp_path)


def test_no_network_is_found_quickly():
    started = time.monotonic()
    assert preparation.unreachable("https://name.invalid/")
    assert preparation.unreachable("http://127.0.0.1:9/")
    assert time.monotonic() - started < 10


def test_a_silent_network_is_given_up(monkeypatch):
    """A host that accepts and never answers, as some networks do."""
    monkeypatch.setattr(preparation, "_SECONDS", 0.5)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as s:
        started = time.monotonic()
        assert preparation.unreachable(f"http://127.0.0.1:{s.server_port}/")
        assert time.monotonic() - started < 2

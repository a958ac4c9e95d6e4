"""Datasets in .npz files, valid and invalid."""

import numpy as np
import pytest

from jvae_jax import data

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
    ],
)
def test_rejects_invalid_arrays(path, arrays, message):
    save(path, **arrays)
    with pytest.raises(ValueError, match=message):
        load(path)


@pytest.mark.parametrize("length", [0, 100, 0.5])
def test_reports_truncated_files(path, length):
    content = save(path, images=IMAGES, labels=LABELS).read_bytes()
    path.write_bytes(content[: length if length > 1 else int(length * len(content))])
    with pytest.raises(ValueError, match=r"mine\.npz can't be read: "):
        load(path)


def test_reports_missing_files(path):
    with pytest.raises(FileNotFoundError, match=r"mine\.npz"):
        load(path)

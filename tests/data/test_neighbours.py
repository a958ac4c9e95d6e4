"""Nearest images, compared with all distances in float64."""

import numpy as np
import pytest

from jvae_jax import data
from jvae_jax.data import neighbours
from jvae_jax.data.neighbours import mutual_neighbours, nearest_images


@pytest.fixture
def images():
    """30 images of 12 values: as many principal components keep all distances."""
    return np.random.default_rng(0).integers(0, 256, (30, 2, 3, 2), dtype=np.uint8)


def test_finds_the_nearest_other_images(images):
    flat = images.reshape(30, -1).astype(np.float64)
    distances = np.linalg.norm(flat[:, None] - flat, axis=-1)
    expected = np.argsort(distances, axis=1)[:, 1:5]
    nearest = nearest_images(images, 4)
    np.testing.assert_array_equal(nearest, expected)
    assert nearest.dtype == np.int32


def test_does_not_depend_on_chunks(images, monkeypatch):
    """Components are estimated from every other image, but in 12 dimensions they are a basis."""
    expected = nearest_images(images, 29)
    monkeypatch.setattr(neighbours, "_FITTED", 15)
    np.testing.assert_array_equal(nearest_images(images, 29), expected)


def test_an_image_is_not_its_own_neighbour_among_equal_ones():
    images = np.zeros((6, 4, 4, 1), np.uint8)
    images[3:] = 255
    nearest = nearest_images(images, 2)
    for index, found in enumerate(nearest):
        group = {0, 1, 2} if index < 3 else {3, 4, 5}
        assert set(found) == group - {index}


@pytest.mark.parametrize("count", [0, 30, -1])
def test_needs_more_images_than_neighbours(images, count):
    with pytest.raises(ValueError, match=f"neighbours must be from 1 to 29, got {count}"):
        nearest_images(images, count)


def test_keeps_mutual_neighbours():
    """On a line, at 0, 1, 3, 4.5 and 20; none has the last one among its two nearest."""
    nearest = np.array([[1, 2], [0, 2], [3, 1], [2, 1], [3, 2]], np.int32)
    kept = mutual_neighbours(nearest)
    np.testing.assert_array_equal(kept, [[1, 1], [0, 2], [3, 1], [2, 2], [4, 4]])
    assert kept.dtype == np.int32


def test_mutual_neighbours_agree_with_a_loop(images):
    nearest = nearest_images(images, 5)
    for index, kept in enumerate(mutual_neighbours(nearest)):
        mutual = [other for other in nearest[index] if index in nearest[other]]
        np.testing.assert_array_equal(kept, np.resize(mutual or [index], 5))


@pytest.mark.long
def test_mutual_neighbours_are_of_the_same_class_more_often(mnist_files):
    dataset = data.load("mnist", str(mnist_files))
    nearest = nearest_images(dataset.train_images, 5)
    labels = dataset.train_labels

    def errors(nearest):
        return (labels[nearest] != labels[:, None]).mean()

    assert errors(mutual_neighbours(nearest)) < errors(nearest) / 2

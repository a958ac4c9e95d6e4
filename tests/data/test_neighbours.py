"""Nearest images, compared with all distances in float64."""

import numpy as np
import pytest

from jvae_jax.data import neighbours
from jvae_jax.data.neighbours import nearest_images


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

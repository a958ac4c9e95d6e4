"""Nearest images, compared with loops over all distances in float64."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from jvae_jax import data
from jvae_jax.data import neighbours
from jvae_jax.data.neighbours import mutual_neighbours, nearest_images


@pytest.fixture
def images():
    """30 images, whose principal components keep all distances between them."""
    return np.random.default_rng(0).integers(0, 256, (30, 4, 7, 2), dtype=np.uint8)


def distortion(image, other, shift):
    """Distance in the image distortion model, a pixel at a time."""

    def gradients(image):
        padded = np.pad(image / 255, [(1, 1), (1, 1), (0, 0)], mode="edge")
        channels = np.moveaxis(padded, -1, 0)  # sobel smooths along all other axes
        responses = [ndimage.sobel(values, axis) for values in channels for axis in (0, 1)]
        return np.stack(responses)[:, 1:-1, 1:-1]

    def beyond(gradients, row, column):
        height, width = gradients.shape[1:3]
        is_inside = 0 <= row < height and 0 <= column < width
        return gradients[:, row, column] if is_inside else np.zeros_like(gradients[:, 0, 0])

    ours, theirs = gradients(image), gradients(other)
    height, width = image.shape[:2]
    shifts = list(itertools.product(range(-shift, shift + 1), repeat=2))
    context = list(itertools.product((-1, 0, 1), repeat=2))
    total = 0.0
    for row, column in itertools.product(range(height), range(width)):
        matches = []
        for down, right in shifts:
            pixels = [(row + i, column + j) for i, j in context]
            inside = [(i, j) for i, j in pixels if 0 <= i < height and 0 <= j < width]
            differences = [ours[:, i, j] - beyond(theirs, i + down, j + right) for i, j in inside]
            matches.append(np.sum(np.square(differences)))
        total += min(matches)
    return total


def test_finds_the_nearest_other_images(images):
    """Of 29 others, 20 are found at half the size, without the odd column."""
    halves = np.rint(images[:, :, :6].reshape(30, 2, 2, 3, 2, 2).mean(axis=(2, 4)))
    nearest = nearest_images(images, 4)
    for index in range(3):
        others = np.delete(np.arange(30), index)
        coarse = [distortion(halves[index], halves[other], shift=1) for other in others]
        shortlist = others[np.argsort(coarse)[:20]]
        fine = [distortion(images[index], images[other], shift=2) for other in shortlist]
        np.testing.assert_array_equal(nearest[index], shortlist[np.argsort(fine)[:4]])
    assert nearest.dtype == np.int32


def test_candidates_are_nearest_in_the_principal_components(images, monkeypatch):
    """Those of the principal components are all that is compared."""
    monkeypatch.setattr(neighbours, "CANDIDATES", 3)
    flat = images.reshape(30, -1).astype(np.float64)
    distances = np.linalg.norm(flat[:, None] - flat, axis=-1)
    expected = np.argsort(distances, axis=1)[:, 1:4]
    np.testing.assert_array_equal(np.sort(nearest_images(images, 3)), np.sort(expected))


def test_does_not_depend_on_chunks(images, monkeypatch):
    expected = nearest_images(images, 4)
    monkeypatch.setattr(neighbours, "_CHUNK", 7)
    np.testing.assert_array_equal(nearest_images(images, 4), expected)


def test_principal_components_do_not_depend_on_chunks(monkeypatch):
    """Components are estimated from every other image, but in 12 dimensions they are a basis."""
    images = np.random.default_rng(0).integers(0, 256, (30, 2, 3, 2), dtype=np.uint8)
    expected = neighbours._nearest_by_components(images, 29)
    monkeypatch.setattr(neighbours, "_FITTED", 15)
    np.testing.assert_array_equal(neighbours._nearest_by_components(images, 29), expected)
    halved = images[:, :, :2].mean(axis=(1, 2), keepdims=True).round()
    np.testing.assert_array_equal(neighbours._halved(images), halved)


def test_a_shifted_image_is_near():
    """By two pixels, further than another image in squared differences of pixels."""
    image = np.zeros((16, 16, 1), np.uint8)
    image[4:12, 5:7] = 255
    shifted, other = np.roll(image, 2, axis=1), image.copy()
    other[10:12, 5:7] = 0
    images = np.stack([image, shifted, other])
    squares = [np.square(image / 255 - rival / 255).sum() for rival in (shifted, other)]
    assert squares[0] > squares[1]
    np.testing.assert_array_equal(nearest_images(images, 2)[0], [1, 2])


@pytest.mark.parametrize(("shape", "halvings"), [((33, 9), 1), ((20, 64), 1), ((100, 66), 2)])
def test_large_images_are_halved(shape, halvings):
    """Blocks of equal pixels become one each, and odd rows and columns are left out."""
    height, width = (side >> halvings for side in shape)
    small = np.random.default_rng(1).integers(0, 256, (12, height, width, 1), dtype=np.uint8)
    large = np.kron(small, np.ones((1, 1 << halvings, 1 << halvings, 1), np.uint8))
    missing = [(0, side - length) for side, length in zip(shape, large.shape[1:3], strict=True)]
    large = np.pad(large, [(0, 0), *missing, (0, 0)], mode="edge")
    np.testing.assert_array_equal(nearest_images(large, 11), nearest_images(small, 11))


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
def test_neighbours_are_of_the_same_class_more_often(mnist_files):
    """Up to deformations than in the principal components, and mutual ones than all."""
    dataset = data.load("mnist", str(mnist_files))
    images, labels = dataset.train_images[:3_000], dataset.train_labels[:3_000]

    def errors(nearest):
        return (labels[nearest] != labels[:, None]).mean()

    nearest = nearest_images(images, 5)
    assert errors(nearest) < errors(neighbours._nearest_by_components(images, 5)) / 2
    assert errors(mutual_neighbours(nearest)) < errors(nearest) / 2

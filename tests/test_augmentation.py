from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jvae_jax.augmentation import random_deformation


def test_random_deformation_preserves_range_and_centre():
    images = jnp.zeros((50, 16, 16, 3)).at[:, 6:10, 6:10, 1].set(1.0)
    augmented = random_deformation(jax.random.key(0), images)
    assert float(augmented.min()) >= 0
    assert float(augmented.max()) <= 1
    np.testing.assert_array_equal(augmented[..., 0], 0)
    np.testing.assert_allclose(augmented[:, 8, 8, 1], 1, atol=0.6)
    mass = augmented[..., 1].sum(axis=(1, 2))
    assert 10 < float(mass.min()) < float(mass.max()) < 24
    assert len({float(value) for value in mass}) == 50


@pytest.mark.parametrize("elastic_strength", [0.0, 1.0])
def test_deformation_depends_only_on_key_of_example(elastic_strength):
    images = jax.random.uniform(jax.random.key(0), (4, 8, 8, 1))
    keys = jax.random.split(jax.random.key(1), 4)
    deform = partial(random_deformation, strength=1.0, elastic_strength=elastic_strength)
    whole = deform(keys, images)
    np.testing.assert_allclose(deform(keys[2:], images[2:]), whole[2:], rtol=1e-5)
    assert not np.allclose(deform(keys[:2], images[2:]), whole[2:], rtol=1e-2)


def displacements(images, strength, elastic_strength=0.0):
    """Displacements along both axes, of images whose values are their pixels' coordinates."""
    rows, columns = jnp.meshgrid(jnp.arange(32.0), jnp.arange(24.0), indexing="ij")
    coordinates = jnp.stack([rows, columns], axis=-1)[None].repeat(images, axis=0)
    key = jax.random.key(2)
    return random_deformation(key, coordinates, strength, elastic_strength) - coordinates


def test_strength_scales_the_affine_transform():
    single, double = (displacements(8, strength)[:, 12:20, 9:15] for strength in (1.0, 2.0))
    np.testing.assert_array_equal(displacements(8, 0.0), 0)
    np.testing.assert_allclose(double, 2 * single, atol=1e-3)
    assert 1 < float(jnp.abs(single).max()) < 5


def test_elastic_strength_scales_the_elastic_deformation():
    """The standard deviation is that of the points halfway between the edges of 5 equal parts."""
    single, double = (displacements(2000, 0.0, strength) for strength in (0.5, 1.0))
    centre = double[:, 15:17, 11:13].mean(axis=(1, 2))  # the middle point is between pixels
    np.testing.assert_allclose(centre.std(axis=0), [1.0, 24 / 32], rtol=0.1)
    np.testing.assert_allclose(double[:, 12:20, 9:15], 2 * single[:, 12:20, 9:15], atol=1e-3)
    correlation = np.corrcoef(double[:, 15, 12, 0], double[:, 15, 12, 1])[0, 1]
    assert abs(correlation) < 0.1


def test_elastic_deformation_is_smooth_but_not_affine():
    field = np.asarray(displacements(50, 0.0, 1.0)[:, 4:28, 3:21])
    steps = np.abs(np.diff(field, axis=1)).mean(), np.abs(np.diff(field, axis=2)).mean()
    assert max(steps) < 0.35 * np.abs(field).mean()
    rows, columns = np.meshgrid(np.arange(24.0), np.arange(18.0), indexing="ij")
    basis = np.stack([np.ones_like(rows), rows, columns], axis=-1).reshape(-1, 3)
    values = field.transpose(1, 2, 0, 3).reshape(len(basis), -1)
    residual = values - basis @ np.linalg.lstsq(basis, values, rcond=None)[0]
    assert residual.std() > 0.5 * values.std()

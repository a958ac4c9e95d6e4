import jax
import jax.numpy as jnp
import numpy as np

from jvae_jax.augmentation import random_affine


def test_random_affine_preserves_range_and_centre():
    images = jnp.zeros((50, 16, 16, 3)).at[:, 6:10, 6:10, 1].set(1.0)
    augmented = random_affine(jax.random.key(0), images)
    assert float(augmented.min()) >= 0
    assert float(augmented.max()) <= 1
    np.testing.assert_array_equal(augmented[..., 0], 0)
    np.testing.assert_allclose(augmented[:, 8, 8, 1], 1, atol=0.6)
    mass = augmented[..., 1].sum(axis=(1, 2))
    assert 10 < float(mass.min()) < float(mass.max()) < 24
    assert len({float(value) for value in mass}) == 50


def test_transform_depends_only_on_key_of_example():
    images = jax.random.uniform(jax.random.key(0), (4, 8, 8, 1))
    keys = jax.random.split(jax.random.key(1), 4)
    whole = random_affine(keys, images)
    np.testing.assert_allclose(random_affine(keys[2:], images[2:]), whole[2:], rtol=1e-5)
    assert not np.allclose(random_affine(keys[:2], images[2:]), whole[2:], rtol=1e-2)


def test_strength_scales_the_transform():
    """Pixels whose values are their coordinates change by their displacement."""
    row, column = jnp.meshgrid(jnp.arange(32.0), jnp.arange(32.0), indexing="ij")
    images = jnp.stack([row, column], axis=-1)[None].repeat(8, axis=0)

    def displacement(strength):
        moved = random_affine(jax.random.key(2), images, strength) - images
        return moved[:, 12:20, 12:20]

    np.testing.assert_array_equal(displacement(0.0), 0)
    np.testing.assert_allclose(displacement(2.0), 2 * displacement(1.0), atol=1e-3)
    assert 1 < float(jnp.abs(displacement(1.0)).max()) < 5

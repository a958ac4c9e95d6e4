import jax
import jax.numpy as jnp
import numpy as np

from jvae_jax.augmentation import random_affine


def test_distortions_keep_the_middle_and_stay_in_range():
    images = jnp.zeros((50, 16, 16, 3)).at[:, 6:10, 6:10, 1].set(1.0)
    distorted = random_affine(jax.random.key(0), images)
    assert float(distorted.min()) >= 0
    assert float(distorted.max()) <= 1
    np.testing.assert_array_equal(distorted[..., 0], 0)
    np.testing.assert_allclose(distorted[:, 8, 8, 1], 1, atol=0.6)
    mass = distorted[..., 1].sum(axis=(1, 2))
    assert 10 < float(mass.min()) < float(mass.max()) < 24
    assert len({float(value) for value in mass}) == 50


def test_an_examples_distortion_is_its_own():
    images = jax.random.uniform(jax.random.key(0), (4, 8, 8, 1))
    keys = jax.random.split(jax.random.key(1), 4)
    whole = random_affine(keys, images)
    np.testing.assert_allclose(random_affine(keys[2:], images[2:]), whole[2:], rtol=1e-5)
    assert not np.allclose(random_affine(keys[:2], images[2:]), whole[2:], rtol=1e-2)

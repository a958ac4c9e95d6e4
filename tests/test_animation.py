import numpy as np
import pytest

from jvae_jax import animation


def test_frames_tile_characters_in_row_major_order():
    """11 characters form a grid of 5 columns, padded with white."""
    images = np.zeros((2, 11, 8, 8, 1), np.float32)
    images[0] = np.linspace(0, 1, 11, dtype=np.float32)[:, None, None, None]
    first, second = animation.animation_frames(images, max_width=40, max_cell_width=8)
    assert first.size == second.size == (40, 24)
    centres = np.asarray(first)[4::8, 4::8]
    expected = np.full((3, 5), 255)
    expected.flat[:11] = np.round(255 * (1 - np.linspace(0, 1, 11)))
    np.testing.assert_allclose(centres, expected, atol=1)
    assert (np.asarray(second) == 255).all()


@pytest.mark.parametrize(("characters", "size"), [(3, (192, 64)), (10, (640, 64)), (1, (64, 64))])
def test_up_to_10_characters_form_one_row(characters, size):
    (frame,) = animation.animation_frames(np.zeros((1, characters, 32, 32, 1), np.float32))
    assert frame.size == size


def test_colour_images_are_not_inverted():
    images = np.zeros((1, 1, 8, 8, 3), np.float32)
    images[..., 0] = 1
    (frame,) = animation.animation_frames(images)
    assert frame.getpixel((3, 3)) == (255, 0, 0)

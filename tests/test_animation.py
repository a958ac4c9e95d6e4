import numpy as np
import pytest

from jvae_jax import animation


def test_characters_stand_in_lines_in_order():
    """Of 11: a grid of 5 in a line, with blank paper at its end."""
    images = np.zeros((2, 11, 8, 8, 1), np.float32)
    images[0] = np.linspace(0, 1, 11, dtype=np.float32)[:, None, None, None]
    first, second = animation.frames(images, width=40, largest=8)
    assert first.size == second.size == (40, 24)
    found = np.asarray(first)[4::8, 4::8]
    expected = np.full((3, 5), 255)
    expected.flat[:11] = np.round(255 * (1 - np.linspace(0, 1, 11)))
    np.testing.assert_allclose(found, expected, atol=1)
    assert (np.asarray(second) == 255).all()


@pytest.mark.parametrize(("characters", "size"), [(3, (192, 64)), (10, (640, 64)), (1, (64, 64))])
def test_few_stand_in_one_line(characters, size):
    (frame,) = animation.frames(np.zeros((1, characters, 32, 32, 1), np.float32))
    assert frame.size == size


def test_colour_is_not_inverted():
    images = np.zeros((1, 1, 8, 8, 3), np.float32)
    images[..., 0] = 1
    (frame,) = animation.frames(images)
    assert frame.getpixel((3, 3)) == (255, 0, 0)

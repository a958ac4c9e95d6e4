import io

import numpy as np
import pytest
from PIL import Image

from jvae_jax import figures


def drawn(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("L"), float)


def test_characters_lie_in_their_cells_dark_on_white():
    images = np.zeros((2, 3, 8, 8, 1))
    images[1, 2] = 1.0
    picture = drawn(figures.sheet(images))
    height, width = picture.shape
    dark = picture < 128
    inside = dark[height // 2 + 2 :, 2 * width // 3 + 2 :]
    assert inside.mean() > 0.9
    assert dark.sum() < 1.1 * inside.size


def test_names_take_room_of_their_own():
    images = np.zeros((2, 3, 8, 8, 1))
    plain, named = (drawn(figures.sheet(images, names)) for names in (None, ["a", "b"]))
    assert named.shape[0] == plain.shape[0]
    assert named.shape[1] > plain.shape[1]
    assert (named < 128).any()


def test_colour_is_kept():
    images = np.zeros((1, 1, 8, 8, 3))
    images[..., 0] = 1.0
    buffer = io.BytesIO()
    figures.sheet(images).savefig(buffer, format="png")
    assert Image.open(buffer).convert("RGB").getpixel((5, 5)) == (255, 0, 0)


def test_bad_shapes_are_told():
    with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
        figures.sheet(np.zeros((1, 1, 8, 8, 2)))
    with pytest.raises(ValueError, match="2 rows need as many names, got 1"):
        figures.sheet(np.zeros((2, 1, 8, 8, 1)), ["a"])

"""Fonts of a hand in Chromium."""

import base64
import io

import jax
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

import jvae_jax
from jvae_jax.handwriting import build_font, sample_hand

pytestmark = pytest.mark.long
SIZE = 120
PAGE = """
<style>
  @font-face {{ font-family: hand; src: url("data:font/{format};base64,{font}"); }}
  body {{ margin: 0 }}
  p {{ font: {size}px/2 hand; margin: 0; padding: 0 20px }}
</style>
<p>{text}</p>
"""


def render(browser, content, format, text):
    """A text in the font, as brightness of black ink on white."""
    page = browser.new_page(viewport={"width": 900, "height": 2 * SIZE})
    font = base64.b64encode(content).decode()
    page.set_content(PAGE.format(format=format, font=font, size=SIZE, text=text))
    assert page.evaluate("document.fonts.ready.then(() => document.fonts.check('12px hand'))")
    with Image.open(io.BytesIO(page.screenshot())) as image:
        pixels = np.asarray(image.convert("L"))
    page.close()
    return pixels


def letters(pixels):
    columns = np.flatnonzero(np.diff(np.r_[0, (pixels < 128).any(axis=0), 0]))
    return [pixels[:, start:end] for start, end in columns.reshape(-1, 2)]


@pytest.mark.parametrize("format", ["ttf", "woff2"])
def test_draws_every_glyph_and_takes_alternates_in_turn(browser, format):
    model, key = jvae_jax.load("digits"), jax.random.key(0)
    hand = sample_hand(model, key)
    content = build_font(model, hand, key=key, format=format)
    ttf = build_font(model, hand, key=key)
    drawing = ImageFont.truetype(io.BytesIO(ttf), SIZE, layout_engine=ImageFont.Layout.BASIC)
    for character in "0123456789":
        (glyph,) = letters(render(browser, content, format, character))
        expected = Image.new("L", (900, 2 * SIZE), 255)
        ImageDraw.Draw(expected).text((20, 20), character, font=drawing, fill=0)
        (pillow,) = letters(np.asarray(expected))
        assert abs(glyph.shape[1] - pillow.shape[1]) <= 2
        assert (glyph < 128).sum() == pytest.approx((pillow < 128).sum(), rel=0.05)
    first, second, third, fourth = letters(render(browser, content, format, "3333"))
    for other in (second, third):
        assert first.shape != other.shape or (first != other).any()
    assert abs(first.shape[1] - fourth.shape[1]) <= 1

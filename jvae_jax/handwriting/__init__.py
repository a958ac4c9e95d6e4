"""Handwriting: a hand estimated from pictures, lines of text as outlines, and fonts."""

from jvae_jax.handwriting.font import build_font
from jvae_jax.handwriting.hand import Hand, estimate_hand, load_hand, sample_hand
from jvae_jax.handwriting.outlines import Outline, trace
from jvae_jax.handwriting.text import Writing, write

__all__ = [
    "Hand",
    "Outline",
    "Writing",
    "build_font",
    "estimate_hand",
    "load_hand",
    "sample_hand",
    "trace",
    "write",
]

"""The page in the repository is that of the packaged digits."""

from pathlib import Path

import jvae_jax
from jvae_jax.app import build_page

PAGE = Path(__file__).parents[2] / "experiments" / "page" / "index.html"


def test_kept_page_is_of_the_packaged_digits():
    scripts = build_page(jvae_jax.load("digits")).partition('<script type="application/json"')
    kept = PAGE.read_text(encoding="utf-8").partition('<script type="application/json"')
    # Weights with folded normalisation, and framing, differ in rounding between processors.
    assert len(kept[2]) > 2_000_000
    assert kept[0] == scripts[0]
    marker = '<script>"use strict"'
    assert kept[2].partition(marker)[2] == scripts[2].partition(marker)[2]

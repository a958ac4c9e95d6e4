"""A page to explore a trained model in the browser.

In a notebook, ``show(build_page(jvae_jax.load(path)))`` opens it inline.
"""

from jvae_jax.app.page import build_page
from jvae_jax.app.server import serve, show

__all__ = ["build_page", "serve", "show"]

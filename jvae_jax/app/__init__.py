"""Gradio page to explore a trained model.

Needs Gradio: ``pip install 'jvae_jax[explore]'``. In a notebook,
``show(explorer(jvae_jax.load(path)))`` opens the page inline.
"""

from jvae_jax.app.page import explorer, show

__all__ = ["explorer", "show"]

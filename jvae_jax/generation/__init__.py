"""Characters from trained models."""

from jvae_jax.generation.characters import (
    decode,
    draw,
    interpolate,
    read,
    reconstruct,
    restyle,
    sample,
    traverse,
)

__all__ = ["decode", "draw", "interpolate", "read", "reconstruct", "restyle", "sample", "traverse"]

"""Generation and inference with trained models."""

from jvae_jax.generation.characters import (
    decode,
    encode,
    interpolate,
    reconstruct,
    restyle,
    sample,
    traverse,
)

__all__ = ["decode", "encode", "interpolate", "reconstruct", "restyle", "sample", "traverse"]

"""Class-conditional, disentangled generation of characters: the Joint-VAE with labels, in JAX."""

from jvae_jax import cli, data
from jvae_jax.config import TrainConfig
from jvae_jax.fitting import fit

__all__ = ["TrainConfig", "cli", "data", "fit"]

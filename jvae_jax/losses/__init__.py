"""The objectives of the paper as pure functions of any encoder and decoder.

Scale, once and everywhere: reconstruction is summed over pixels and channels, every term is in nats
per image, and the batch is averaged once, in the loss. So beta, gamma and the capacities mean the
same at every image size.

``encode``, ``decode`` and ``classify`` are plain callables: linen, equinox, haiku or a bare matrix
product. A linen model with BatchNorm uses the same functions inside
``flax.linen.apply(fn, model, mutable=["batch_stats"])``, so the losses never see model state.
``gaussian_key`` and ``gumbel_key`` are each one key, or one for each example.
``axis_name`` makes every mean that stands inside |.| the mean over that axis's devices too; the
loss itself stays the device's own, so average gradients and losses as for any other loss.

Equation numbers are those of Goto and Inoue, *Learning VAE with Categorical Labels for Generating
Conditional Handwritten Characters*. All losses are minimised: the paper's bounds with their sign
turned.
"""

from jvae_jax.losses._cvae import cvae
from jvae_jax.losses._joint_vae import joint_vae, ours
from jvae_jax.losses._terms import (
    bernoulli_nll,
    categorical_kl,
    gaussian_kl,
    label_kl,
    squared_error,
)
from jvae_jax.losses._vae import annealed_vae, beta_vae, vae

__all__ = [
    "annealed_vae",
    "bernoulli_nll",
    "beta_vae",
    "categorical_kl",
    "cvae",
    "gaussian_kl",
    "joint_vae",
    "label_kl",
    "ours",
    "squared_error",
    "vae",
]

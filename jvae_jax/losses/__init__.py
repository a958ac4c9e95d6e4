"""Objectives of the paper as pure functions of an encoder and a decoder.

Units: Every term is in nats per image. The reconstruction loss is summed over pixels and channels,
KL divergences over dimensions, and the loss takes the mean over the batch once. The weights beta
and gamma and the capacities therefore mean the same at every image size.

Sign: Losses are minimised. They are the paper's lower bounds, negated.

Models: ``encode``, ``decode`` and ``classify`` are callables from any library, for example linen,
equinox or haiku. For a linen model with batch normalisation, call the loss inside
``flax.linen.apply(fn, model, mutable=["batch_stats"])``; losses don't handle model state.

Images are float arrays in [0, 1] of shape (batch, height, width, channels). Labels are class
indices of shape (batch,); -1 means unlabelled. Both may be numpy arrays or nested lists. Shapes and
dtypes are checked, under ``jit`` too; the values of labels only outside of it, and those of images
never.

Types: Terms and noise have the dtype of the posterior. The losses also work with
``jax_enable_x64`` and ``jax_numpy_dtype_promotion="strict"``.

Keys: ``gaussian_key`` and ``gumbel_key`` are a single key or one key per example, of shape
(batch,). They have no default.

Devices: ``axis_name`` is the name of a mapped device axis, as in ``jax.pmap``. Means inside
|KL - C| are then taken over the global batch. The returned loss is that of one device: average
losses and gradients over devices as usual.

Equations: 1 :func:`vae`, 4 :func:`gaussian_kl`, 5 :func:`cvae`, 6 :func:`beta_vae`,
7 :func:`annealed_vae`, 8 :func:`joint_vae`, 9 :func:`categorical_kl`, 10 :func:`ours`,
11 :func:`label_kl`.

Equation numbers refer to Goto and Inoue, *Learning VAE with Categorical Labels for Generating
Conditional Handwritten Characters*.
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

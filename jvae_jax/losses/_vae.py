"""Objectives with a continuous latent z only: VAE, beta-VAE and annealed beta-VAE."""

import jax.numpy as jnp

from jvae_jax import sampling
from jvae_jax.losses._terms import (
    bernoulli_nll,
    capacity_penalty,
    check_posterior,
    gaussian_kl,
    mean_over_devices,
    reconstruction_term,
)
from jvae_jax.types import Decode, Encode, Images, LossTerms, PRNGKey, ReconstructionLoss, Scalar
from jvae_jax.validation import as_images


def vae(
    encode: Encode,
    decode: Decode,
    images: Images,
    *,
    gaussian_key: PRNGKey,
    reconstruction_loss: ReconstructionLoss = bernoulli_nll,
) -> tuple[Scalar, LossTerms]:
    """Negative evidence lower bound of the VAE, eq. 1.

        E_q[-log p(x|z)] + KL(q(z|x) || p(z))

    Args:
        encode: maps images to a ``Posterior`` with mean and logvar of shape (batch, latents).
        decode: maps z, (batch, latents), to image logits, (batch, height, width, channels).
        images: floats in [0, 1], (batch, height, width, channels).
        gaussian_key: key of the Gaussian noise of z; a single key or one per example.
        reconstruction_loss: maps image logits and images to -log p(x|z) up to a constant, in nats
            per image, (batch,).

    Returns:
        The loss, averaged over the batch in nats per image, and its terms, (batch,).

    Raises:
        ValueError: if ``images`` aren't floats, or ``encode`` or ``decode`` returns another shape.

    References:
        Kingma and Welling, *Auto-Encoding Variational Bayes*, 2014.
    """
    return beta_vae(
        encode,
        decode,
        images,
        gaussian_key=gaussian_key,
        beta=1.0,
        reconstruction_loss=reconstruction_loss,
    )


def beta_vae(
    encode: Encode,
    decode: Decode,
    images: Images,
    *,
    gaussian_key: PRNGKey,
    beta: float,
    reconstruction_loss: ReconstructionLoss = bernoulli_nll,
) -> tuple[Scalar, LossTerms]:
    """Loss of the beta-VAE, eq. 6.

        E_q[-log p(x|z)] + beta KL(q(z|x) || p(z))

    Args:
        encode: maps images to a ``Posterior`` with mean and logvar of shape (batch, latents).
        decode: maps z, (batch, latents), to image logits, (batch, height, width, channels).
        images: floats in [0, 1], (batch, height, width, channels).
        gaussian_key: key of the Gaussian noise of z; a single key or one per example.
        beta: weight of the KL divergence of z.
        reconstruction_loss: maps image logits and images to -log p(x|z) up to a constant, in nats
            per image, (batch,).

    Returns:
        The loss, averaged over the batch in nats per image, and its terms, (batch,).

    Raises:
        ValueError: if ``images`` aren't floats, or ``encode`` or ``decode`` returns another shape.

    References:
        Higgins et al., *beta-VAE: Learning Basic Visual Concepts with a Constrained Variational
        Framework*, 2017.
    """
    terms = _continuous_terms(encode, decode, images, gaussian_key, reconstruction_loss)
    return jnp.mean(terms.reconstruction + beta * terms.kl_z), terms


def annealed_vae(
    encode: Encode,
    decode: Decode,
    images: Images,
    *,
    gaussian_key: PRNGKey,
    beta: float,
    capacity_z: float | Scalar,
    multiplier_z: float | Scalar | None = None,
    reconstruction_loss: ReconstructionLoss = bernoulli_nll,
    axis_name: str | None = None,
) -> tuple[Scalar, LossTerms]:
    """Loss of the beta-VAE with an annealed capacity, eq. 7.

        E_q[-log p(x|z)] + beta |KL(q(z|x) || p(z)) - C_z|

    The KL divergence inside |.| is the mean over the batch.

    Args:
        encode: maps images to a ``Posterior`` with mean and logvar of shape (batch, latents).
        decode: maps z, (batch, latents), to image logits, (batch, height, width, channels).
        images: floats in [0, 1], (batch, height, width, channels).
        gaussian_key: key of the Gaussian noise of z; a single key or one per example.
        beta: weight of the distance between the KL divergence of z and its capacity.
        capacity_z: capacity C_z of z, in nats.
        multiplier_z: multiplier of KL - C_z, from -beta to beta, or None for beta |KL - C_z|. The
            penalty is then max_m m (KL - C_z) - (m - multiplier_z)^2 / 2 over m in these bounds,
            and its derivative with respect to ``multiplier_z`` is KL - C_z, or less at the bounds.
            Not in the paper.
        reconstruction_loss: maps image logits and images to -log p(x|z) up to a constant, in nats
            per image, (batch,).
        axis_name: name of the device axis over which the KL divergence is averaged, or None.

    Returns:
        The loss, averaged over the batch in nats per image, and its terms, (batch,).

    Raises:
        ValueError: if ``images`` aren't floats, or ``encode`` or ``decode`` returns another shape.

    References:
        Burgess et al., *Understanding disentangling in beta-VAE*, 2018.
    """
    terms = _continuous_terms(encode, decode, images, gaussian_key, reconstruction_loss)
    difference = mean_over_devices(terms.kl_z, axis_name) - capacity_z
    penalty = capacity_penalty(difference, beta, multiplier_z)
    return jnp.mean(terms.reconstruction) + penalty, terms


def _continuous_terms(
    encode: Encode,
    decode: Decode,
    images: Images,
    gaussian_key: PRNGKey,
    reconstruction_loss: ReconstructionLoss,
) -> LossTerms:
    images = as_images(images)
    posterior = encode(images)
    check_posterior(posterior, len(images))
    z = sampling.gaussian(gaussian_key, posterior.mean, posterior.logvar)
    return LossTerms(
        reconstruction=reconstruction_term(reconstruction_loss, decode(z), images),
        kl_z=gaussian_kl(posterior.mean, posterior.logvar),
    )

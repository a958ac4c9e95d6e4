"""The objectives with a continuous z alone: VAE, beta-VAE, annealed beta-VAE."""

import jax.numpy as jnp

from jvae_jax import sampling
from jvae_jax.losses._terms import bernoulli_nll, gaussian_kl, mean_over_devices
from jvae_jax.types import Decode, Encode, Images, LossTerms, PRNGKey, ReconstructionLoss, Scalar


def vae(
    encode: Encode,
    decode: Decode,
    images: Images,
    *,
    gaussian_key: PRNGKey,
    reconstruction_loss: ReconstructionLoss = bernoulli_nll,
) -> tuple[Scalar, LossTerms]:
    """The VAE's negative evidence lower bound: eq. 1.

        E_q[-log p(x|z)] + KL(q(z|x) || p(z))

    Args:
        encode: images to a ``Posterior``.
        decode: z to image logits.
        images: (batch, height, width, channels) in [0, 1].
        gaussian_key: noise of z.
        reconstruction_loss: -log p(x|z) of logits and images, for each example, up to a constant.

    Returns:
        The loss, in nats per image, and its terms for each example.

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
    """The beta-VAE: eq. 6.

        E_q[-log p(x|z)] + beta KL(q(z|x) || p(z))

    Args and returns as :func:`vae`, with the weight ``beta``.

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
    reconstruction_loss: ReconstructionLoss = bernoulli_nll,
    axis_name: str | None = None,
) -> tuple[Scalar, LossTerms]:
    """The beta-VAE with an annealed capacity: eq. 7.

        E_q[-log p(x|z)] + beta |KL(q(z|x) || p(z)) - C_z|

    The KL inside |.| is its mean over the batch.

    Args and returns as :func:`vae`, with the weight ``beta`` and ``capacity_z``, C_z in nats.

    References:
        Burgess et al., *Understanding disentangling in beta-VAE*, 2018.
    """
    terms = _continuous_terms(encode, decode, images, gaussian_key, reconstruction_loss)
    distance = jnp.abs(mean_over_devices(terms.kl_z, axis_name) - capacity_z)
    return jnp.mean(terms.reconstruction) + beta * distance, terms


def _continuous_terms(
    encode: Encode,
    decode: Decode,
    images: Images,
    gaussian_key: PRNGKey,
    reconstruction_loss: ReconstructionLoss,
) -> LossTerms:
    posterior = encode(images)
    z = sampling.gaussian(gaussian_key, posterior.mean, posterior.logvar)
    return LossTerms(
        reconstruction=reconstruction_loss(decode(z), images),
        kl_z=gaussian_kl(posterior.mean, posterior.logvar),
    )

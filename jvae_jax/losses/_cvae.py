"""The objective whose labels enter the networks: CVAE."""

import jax
import jax.numpy as jnp
from jax import Array

from jvae_jax import sampling
from jvae_jax.losses._terms import (
    bernoulli_nll,
    categorical_kl,
    check_labels,
    gaussian_kl,
    label_kl,
    population_weights,
)
from jvae_jax.types import (
    Classify,
    Decode,
    Encode,
    Images,
    Labels,
    LossTerms,
    PRNGKey,
    ReconstructionLoss,
    Scalar,
)


def cvae(
    encode: Encode,
    decode: Decode,
    classify: Classify,
    images: Images,
    labels: Labels,
    *,
    gaussian_key: PRNGKey,
    alpha: float,
    all_labelled: bool = False,
    labelled_fraction: float | None = None,
    reconstruction_loss: ReconstructionLoss = bernoulli_nll,
    axis_name: str | None = None,
) -> tuple[Scalar, LossTerms]:
    """The conditional VAE with a classifier for the unlabelled (Kingma's M2): eq. 5.

    With L(x, y) = E_q(z|x,y)[-log p(x|z,y)] + KL(q(z|x,y) || p(z)) and a uniform p(y),

        labelled:    L(x, y) + log K - alpha log q(y|x)
        unlabelled:  sum_y q(y|x) L(x, y) + log K - H(q(y|x))

    The sum over classes is exact: K times as many latents are decoded, with the same noise.

    Args:
        encode: images and one-hot labels (m, classes) to a ``Posterior`` of (m, latents). m is
            batch or, for the sum, batch x K: all labels of the first image, then of the next.
        decode: z beside the one-hot label, (batch, latents + classes), to image logits.
        classify: images to logits of q(y|x).
        images: (batch, height, width, channels) in [0, 1].
        labels: class indices; -1 is unlabelled.
        gaussian_key: noise of z.
        alpha: weight of the classifier's cross-entropy.
        all_labelled: promises that no label is -1, and saves the sum.
        labelled_fraction: the share of the data set that is labelled, where a batch holds another
            share: all but the cross-entropy is then weighted to be that of the data set. Without
            it each example weighs the same.
        reconstruction_loss: -log p(x|z,y) of logits and images, for each example, up to a constant.
        axis_name: the device axis, if any.

    Returns:
        The loss, in nats per image, and its terms for each example: ``kl_c`` is
        KL(label or q(y|x) || uniform), ``cross_entropy`` is not yet weighted by alpha.

    Raises:
        ValueError: if labels aren't one integer for each image, or ``encode`` doesn't give a
            posterior for each label.

    References:
        Kingma, Rezende, Mohamed and Welling, *Semi-Supervised Learning with Deep Generative
        Models*, 2014.
    """
    check_labels(images, labels)
    class_logits = classify(images)
    batch, classes = class_logits.shape
    one_hot = jax.nn.one_hot(labels, classes)
    labelled = labels >= 0

    def bound(labels: Array) -> tuple[Array, Array]:
        copies = len(labels) // batch
        posterior = encode(images, labels)
        if len(posterior.mean) != len(labels):
            raise ValueError(
                f"encode must give a posterior for each of {len(labels)} labels, {copies} for each "
                f"of {batch} images, got {len(posterior.mean)}"
            )
        latents = posterior.mean.shape[-1]
        noise = sampling.standard_normal(gaussian_key, (batch, latents)).repeat(copies, axis=0)
        z = posterior.mean + jnp.exp(0.5 * posterior.logvar) * noise
        logits = decode(jnp.concatenate([z, labels], axis=-1))
        reconstruction = reconstruction_loss(logits, images.repeat(copies, axis=0))
        kl_z = gaussian_kl(posterior.mean, posterior.logvar)
        return reconstruction.reshape(batch, copies), kl_z.reshape(batch, copies)

    if all_labelled:
        weights = jnp.ones((batch, 1))
        reconstruction, kl_z = bound(one_hot)
    else:
        weights = jnp.where(labelled[:, None], one_hot, jax.nn.softmax(class_logits))
        reconstruction, kl_z = bound(jnp.tile(jnp.eye(classes), (batch, 1)))

    reconstruction = jnp.sum(weights * reconstruction, axis=-1)
    kl_z = jnp.sum(weights * kl_z, axis=-1)
    kl_c = jnp.where(labelled, jnp.log(classes), categorical_kl(class_logits))
    cross_entropy = label_kl(class_logits, labels)
    weights = population_weights(labelled, labelled_fraction, axis_name)
    loss = jnp.mean(weights * (reconstruction + kl_z + kl_c) + alpha * cross_entropy)
    return loss, LossTerms(reconstruction, kl_z, kl_c, cross_entropy)

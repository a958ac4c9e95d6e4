"""Objective of the conditional VAE (CVAE), which conditions on the label."""

import jax
import jax.numpy as jnp
from jax import Array

from jvae_jax import sampling
from jvae_jax.losses._terms import (
    bernoulli_nll,
    capacity_penalty,
    categorical_kl,
    check_logits,
    check_posterior,
    consistency_loss,
    gaussian_kl,
    label_kl,
    marginal_kl,
    mean_over_devices,
    population_weights,
    reconstruction_term,
    with_augmented,
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
from jvae_jax.validation import as_class_indices, as_images


def cvae(
    encode: Encode,
    decode: Decode,
    classify: Classify,
    images: Images,
    labels: Labels,
    *,
    gaussian_key: PRNGKey,
    alpha: float,
    beta: float = 1.0,
    capacity_z: float | Scalar | None = None,
    multiplier_z: float | Scalar | None = None,
    augmented_images: Images | None = None,
    consistency_weight: float = 0.0,
    marginal_weight: float = 0.0,
    all_labelled: bool = False,
    labelled_fraction: float | None = None,
    reconstruction_loss: ReconstructionLoss = bernoulli_nll,
    axis_name: str | None = None,
) -> tuple[Scalar, LossTerms]:
    """Loss of the conditional VAE with a classifier for unlabelled examples (M2), eq. 5.

    With L(x, y) = E_q(z|x,y)[-log p(x|z,y)] + KL(q(z|x,y) || p(z)) and a uniform p(y) over K
    classes,

        labelled:    L(x, y) + log K - alpha log q(y|x)
        unlabelled:  sum_y q(y|x) L(x, y) + log K - H(q(y|x))

    The sum over classes is exact: every image is encoded and decoded K times with the same noise.
    ``beta`` weights KL(z), and is 1 in the paper. With ``capacity_z``, beta |KL - C_z| of the mean
    over the batch replaces it.

    Args:
        encode: maps images, (batch, height, width, channels), and one-hot labels, (m, classes), to
            a ``Posterior`` with mean and logvar of shape (m, latents). m is batch or, for the sum
            over classes, batch * K, where the K labels of one image are consecutive.
        decode: maps z concatenated with the one-hot label, (m, latents + classes), to image
            logits, (m, height, width, channels).
        classify: maps images to logits of q(y|x), (batch, classes).
        images: floats in [0, 1], (batch, height, width, channels).
        labels: class indices, (batch,); -1 means unlabelled.
        gaussian_key: key of the Gaussian noise of z; a single key or one per example.
        alpha: weight of the classifier's cross-entropy.
        beta: weight of KL(z) or, with ``capacity_z``, of its distance from the capacity.
        capacity_z: capacity C_z of z, in nats, or None for no capacity.
        multiplier_z: multiplier of KL - C_z, from -beta to beta, or None for beta |KL - C_z|; see
            :func:`ours`.
        augmented_images: randomly transformed ``images``, or images near them, of the same shape
            for the consistency loss; None for no such loss. ``classify`` then receives 2 * batch
            images. Not in the paper, as the following two.
        consistency_weight: weight of the consistency loss of q(y|x); see :func:`ours`.
        marginal_weight: weight of KL(q(y) || p(y)), where q(y) is the mean of q(y|x) over the
            batch; see :func:`ours`.
        all_labelled: skip the sum over classes; requires that no label is -1.
        labelled_fraction: labelled fraction of the dataset, if batches contain another fraction.
            All terms but the cross-entropy are then weighted to represent the dataset. None
            weights all examples equally.
        reconstruction_loss: maps image logits and images to -log p(x|z,y) up to a constant, in
            nats per image, (m,).
        axis_name: name of the device axis over which ``labelled_fraction`` is balanced and the
            mean inside |.| is taken, or None.

    Returns:
        The loss, averaged over the batch in nats per image, and its terms, (batch,). ``kl_c`` is
        the KL divergence of the one-hot label, or of q(y|x) if unlabelled, from the uniform prior.
        ``cross_entropy`` is not multiplied by alpha.

    Raises:
        ValueError: if ``images`` aren't floats, ``labels`` are invalid (see :func:`label_kl`), a
            callable returns another shape, or there is a ``multiplier_z`` but no ``capacity_z``.

    References:
        Kingma, Rezende, Mohamed and Welling, *Semi-Supervised Learning with Deep Generative
        Models*, 2014.
    """
    if multiplier_z is not None and capacity_z is None:
        raise ValueError("multiplier_z requires capacity_z")
    images = inputs = as_images(images)
    if augmented_images is not None:
        inputs = with_augmented(images, augmented_images)
    all_logits = classify(inputs)
    check_logits(all_logits, len(inputs))
    class_logits = all_logits[: len(images)]
    (batch, classes), dtype = class_logits.shape, class_logits.dtype
    labels = jnp.asarray(as_class_indices(labels, batch, classes=classes, unlabelled=True))
    one_hot = jax.nn.one_hot(labels, classes, dtype=dtype)
    labelled = labels >= 0

    def conditional_terms(conditions: Array) -> tuple[Array, Array]:
        labels_per_image = len(conditions) // batch
        posterior = encode(images, conditions)
        if len(posterior.mean) != len(conditions):
            raise ValueError(
                f"encode must return {len(conditions)} posteriors, one for each of "
                f"{labels_per_image} labels of {batch} images, got {len(posterior.mean)}"
            )
        check_posterior(posterior, len(conditions))
        latents = posterior.mean.shape[-1]
        noise = sampling.standard_normal(gaussian_key, (batch, latents), posterior.mean.dtype)
        noise = noise.repeat(labels_per_image, axis=0)
        z = posterior.mean + jnp.exp(0.5 * posterior.logvar) * noise
        logits = decode(jnp.concatenate([z, conditions], axis=-1))
        repeated_images = images.repeat(labels_per_image, axis=0)
        reconstruction = reconstruction_term(reconstruction_loss, logits, repeated_images)
        kl_z = gaussian_kl(posterior.mean, posterior.logvar)
        shape = batch, labels_per_image
        return reconstruction.reshape(shape), kl_z.reshape(shape)

    if all_labelled:
        class_weights = jnp.ones((batch, 1), dtype)
        reconstruction, kl_z = conditional_terms(one_hot)
    else:
        all_labels = jnp.tile(jnp.eye(classes, dtype=dtype), (batch, 1))
        class_weights = jnp.where(labelled[:, None], one_hot, jax.nn.softmax(class_logits))
        reconstruction, kl_z = conditional_terms(all_labels)

    reconstruction = jnp.sum(class_weights * reconstruction, axis=-1)
    kl_z = jnp.sum(class_weights * kl_z, axis=-1)
    log_classes = jnp.log(jnp.asarray(classes, dtype))
    kl_c = jnp.where(labelled, log_classes, categorical_kl(class_logits))
    cross_entropy = label_kl(class_logits, labels)
    weights = population_weights(labelled, labelled_fraction, axis_name, dtype)
    weighted_kl_z = beta * kl_z if capacity_z is None else jnp.zeros_like(kl_z)
    elbo_terms = weights * (reconstruction + weighted_kl_z + kl_c)
    loss = jnp.mean(elbo_terms + alpha * cross_entropy)
    if capacity_z is not None:
        difference = mean_over_devices(weights * kl_z, axis_name) - capacity_z
        loss += capacity_penalty(difference, beta, multiplier_z)
    terms = LossTerms(reconstruction, kl_z, kl_c, cross_entropy)
    if augmented_images is not None:
        consistency = consistency_loss(all_logits[batch:], class_logits, labels)
        terms = terms._replace(consistency=consistency)
        loss += consistency_weight * jnp.mean(consistency)
    if marginal_weight:
        marginal = marginal_kl(class_logits, axis_name)
        terms = terms._replace(marginal_kl=marginal)
        loss += marginal_weight * jnp.mean(marginal)
    return loss, terms

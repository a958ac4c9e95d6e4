"""Objectives with a continuous latent z and a categorical latent c: Joint-VAE and ours."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

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
    PerExample,
    PRNGKey,
    ReconstructionLoss,
    Scalar,
)
from jvae_jax.validation import as_class_indices, as_images, check_equal_shapes


def joint_vae(
    encode: Encode,
    decode: Decode,
    images: Images,
    *,
    gaussian_key: PRNGKey,
    gumbel_key: PRNGKey,
    beta: float,
    gamma: float,
    capacity_z: float | Scalar,
    capacity_c: float | Scalar,
    multiplier_z: float | Scalar | None = None,
    multiplier_c: float | Scalar | None = None,
    augmented_images: Images | None = None,
    consistency_weight: float = 0.0,
    marginal_weight: float = 0.0,
    information_weight: float = 0.0,
    prior_latents: Float[Array, "batch inputs"] | None = None,
    classify_decoded: Classify | None = None,
    classify: Classify | None = None,
    temperature: float,
    reconstruction_loss: ReconstructionLoss = bernoulli_nll,
    axis_name: str | None = None,
) -> tuple[Scalar, LossTerms]:
    """Loss of the Joint-VAE, with a uniform prior of c, eq. 8.

        E_q[-log p(x|z,c)] + beta |KL(q(z|x) || p(z)) - C_z| + gamma |KL(q(c|x) || p(c)) - C_c|

    KL divergences inside |.| are means over the batch. The loss equals :func:`ours` with every
    label -1; arguments that aren't listed here are documented there.

    Args:
        gamma: weight of the distance between the KL divergence of c and its capacity.
        capacity_c: capacity C_c of c, in nats; at most log K is reachable with K classes.
        multiplier_c: multiplier of KL - C_c, from -gamma to gamma, or None for gamma |KL - C_c|.

    Returns:
        The loss, averaged over the batch in nats per image, and its terms, (batch,).

    Raises:
        ValueError: if ``images`` aren't floats, the posterior has no logits, a callable returns
            another shape, or there is an ``information_weight`` but no ``prior_latents`` or
            ``classify_decoded``.

    References:
        Dupont, *Learning Disentangled Joint Continuous and Discrete Representations*, 2018.
    """
    unlabelled = jnp.full(len(images), -1, jnp.int32)
    return ours(
        encode,
        decode,
        images,
        unlabelled,
        gaussian_key=gaussian_key,
        gumbel_key=gumbel_key,
        beta=beta,
        gamma=gamma,
        capacity_z=capacity_z,
        capacity_c=capacity_c,
        multiplier_z=multiplier_z,
        unlabelled_multiplier_c=multiplier_c,
        augmented_images=augmented_images,
        consistency_weight=consistency_weight,
        marginal_weight=marginal_weight,
        information_weight=information_weight,
        prior_latents=prior_latents,
        classify_decoded=classify_decoded,
        classify=classify,
        temperature=temperature,
        reconstruction_loss=reconstruction_loss,
        axis_name=axis_name,
    )


def ours(
    encode: Encode,
    decode: Decode,
    images: Images,
    labels: Labels,
    *,
    gaussian_key: PRNGKey,
    gumbel_key: PRNGKey,
    beta: float,
    gamma: float,
    capacity_z: float | Scalar,
    capacity_c: float | Scalar,
    unlabelled_capacity_c: float | Scalar | None = None,
    multiplier_z: float | Scalar | None = None,
    multiplier_c: float | Scalar | None = None,
    unlabelled_multiplier_c: float | Scalar | None = None,
    labelled_fraction: float | None = None,
    augmented_images: Images | None = None,
    consistency_weight: float = 0.0,
    marginal_weight: float = 0.0,
    information_weight: float = 0.0,
    prior_latents: Float[Array, "batch inputs"] | None = None,
    classify_decoded: Classify | None = None,
    classify: Classify | None = None,
    temperature: float,
    reconstruction_loss: ReconstructionLoss = bernoulli_nll,
    axis_name: str | None = None,
) -> tuple[Scalar, LossTerms]:
    """Loss of the paper's method, with a label-specific prior of c, eq. 10.

        E_q[-log p(x|z,c)] + beta |KL(q(z|x) || p(z)) - C_z| + gamma |KL(q(c|x) || p(c|y)) - C_c|

    KL divergences inside |.| are means over the batch. Unlabelled examples keep the uniform prior
    of eq. 9 and have a separate capacity. The distance of each group (labelled, unlabelled) is
    weighted by gamma times the group's fraction of the batch: eq. 10 if all examples are labelled,
    eq. 8 if none is.

    Args:
        encode: maps images to a ``Posterior`` with mean and logvar of shape (batch, latents) and
            logits of shape (batch, classes). It receives 2 * batch images if ``augmented_images``
            is given and ``classify`` isn't.
        decode: maps z concatenated with the relaxed one-hot c, (batch, latents + classes), to
            image logits, (batch, height, width, channels).
        images: floats in [0, 1], (batch, height, width, channels).
        labels: class indices, (batch,); -1 means unlabelled.
        gaussian_key: key of the Gaussian noise of z; a single key or one per example.
        gumbel_key: key of the Gumbel noise of c; a single key or one per example.
        beta: weight of the distance between the KL divergence of z and its capacity.
        gamma: weight of the distances between the KL divergences of c and their capacities.
        capacity_z: capacity C_z of z, in nats.
        capacity_c: capacity C_c of c for labelled examples, in nats.
        unlabelled_capacity_c: capacity C_c of c for unlabelled examples, in nats; at most log K is
            reachable with K classes. None means ``capacity_c``.
        multiplier_z: multiplier of KL - C_z, from -beta to beta, or None for beta |KL - C_z|. The
            penalty is then max_m m (KL - C_z) - (m - multiplier_z)^2 / 2 over m in these bounds,
            and its derivative with respect to ``multiplier_z`` is KL - C_z, or less at the bounds.
            Not in the paper.
        multiplier_c: the same for KL - C_c of labelled examples, times their fraction of the
            batch, with bounds -gamma and gamma.
        unlabelled_multiplier_c: the same for unlabelled examples.
        labelled_fraction: labelled fraction of the dataset, if batches contain another fraction.
            The reconstruction and the KL divergence of z are then weighted to represent the data
            set. None weights all examples equally.
        augmented_images: randomly transformed ``images``, or images near them, of the same shape
            for the consistency loss; None for no such loss. Not in the paper.
        consistency_weight: weight of the consistency loss, the cross-entropy of q(c|augmented x) to
            the label, or to q(c|x) if unlabelled. No gradient flows through the latter.
        marginal_weight: weight of KL(q(c) || p(c)), where q(c) is the mean of q(c|x) over the batch
            and p(c) is uniform. KL(q(c|x) || p(c)) is the mutual information of x and c plus this.
            Not in the paper.
        information_weight: weight of E[-log q(c|x)], where x is decoded from z and c that are drawn
            from their priors. log K less this cross-entropy is a lower bound of the mutual
            information of c and x, as in InfoGAN. Not in the paper.
        prior_latents: these z, concatenated with the one-hot c, (batch, latents + classes); see
            :func:`~jvae_jax.sampling.prior_latents`. None without ``information_weight``.
        classify_decoded: maps z concatenated with the one-hot c to the logits of q(c|x) of the
            decoded image. None without ``information_weight``. In :class:`~jvae_jax.Autoencoder`
            no gradient flows to the parameters of q(c|x), unlike in InfoGAN.
        classify: maps images to logits of q(c|x), (batch, classes), in place of the posterior's.
            ``encode`` then receives images and the relaxed one-hot c, (batch, classes), and its
            posterior of z is q(z|x,c). Not in the paper.
        temperature: temperature of the Gumbel-softmax, above 0.
        reconstruction_loss: maps image logits and images to -log p(x|z,c) up to a constant, in
            nats per image, (batch,).
        axis_name: name of the device axis over which means inside |.| are taken, or None.

    Returns:
        The loss, averaged over the batch in nats per image, and its terms, (batch,). ``kl_c`` is
        eq. 11 for labelled examples and eq. 9 for unlabelled ones.

    Raises:
        ValueError: if ``images`` aren't floats, ``labels`` are invalid (see :func:`label_kl`), the
            posterior has no logits, a callable returns another shape, or there is an
            ``information_weight`` but no ``prior_latents`` or ``classify_decoded``.

    References:
        Goto and Inoue, *Learning VAE with Categorical Labels for Generating Conditional
        Handwritten Characters*.

        Hu et al., *Learning Discrete Representations via Information Maximizing Self-Augmented
        Training*, 2017, for the consistency and marginal losses.

        Chen et al., *InfoGAN: Interpretable Representation Learning by Information Maximizing
        Generative Adversarial Nets*, 2016.
    """
    if information_weight and (prior_latents is None or classify_decoded is None):
        raise ValueError("information_weight requires prior_latents and classify_decoded")
    images, batch = as_images(images), len(images)
    inputs = images
    if augmented_images is not None:
        inputs = with_augmented(images, augmented_images)
    if classify is None:
        posterior = encode(inputs)
        check_posterior(posterior, len(inputs))
        if posterior.logits is None:
            raise ValueError("encode must return a Posterior with logits, got logits=None")
        all_logits = posterior.logits
    else:
        posterior, all_logits = None, classify(inputs)
        check_logits(all_logits, len(inputs))
    logits = all_logits[:batch]
    labels = jnp.asarray(as_class_indices(labels, batch, classes=logits.shape[-1], unlabelled=True))
    c = sampling.gumbel_softmax(gumbel_key, logits, temperature)
    if posterior is None:
        posterior = encode(images, c)
        check_posterior(posterior, batch)
    mean, logvar = posterior.mean[:batch], posterior.logvar[:batch]
    z = sampling.gaussian(gaussian_key, mean, logvar)
    latents = jnp.concatenate([z, c], axis=-1)
    decoded = decode(latents)
    labelled = labels >= 0
    kl_c = jnp.where(labelled, label_kl(logits, labels), categorical_kl(logits))
    terms = LossTerms(
        reconstruction=reconstruction_term(reconstruction_loss, decoded, images),
        kl_z=gaussian_kl(mean, logvar),
        kl_c=kl_c,
    )
    if marginal_weight:
        terms = terms._replace(marginal_kl=marginal_kl(logits, axis_name))
    if augmented_images is not None:
        consistency = consistency_loss(all_logits[batch:], logits, labels)
        terms = terms._replace(consistency=consistency)
    if information_weight and prior_latents is not None and classify_decoded is not None:
        check_equal_shapes(prior_latents=prior_latents, latents=latents)
        decoded_logits = classify_decoded(prior_latents)
        check_logits(decoded_logits, batch)
        prior_c = prior_latents[:, z.shape[-1] :]
        information = -jnp.sum(prior_c * jax.nn.log_softmax(decoded_logits), axis=-1)
        terms = terms._replace(information=information)
    if unlabelled_capacity_c is None:
        unlabelled_capacity_c = capacity_c
    weights = population_weights(labelled, labelled_fraction, axis_name, kl_c.dtype)
    difference_z = mean_over_devices(weights * terms.kl_z, axis_name) - capacity_z
    difference_c = _weighted_difference(kl_c, labelled, capacity_c, axis_name)
    unlabelled_difference_c = _weighted_difference(
        kl_c, ~labelled, unlabelled_capacity_c, axis_name
    )
    loss = (
        jnp.mean(weights * terms.reconstruction)
        + capacity_penalty(difference_z, beta, multiplier_z)
        + capacity_penalty(difference_c, gamma, multiplier_c)
        + capacity_penalty(unlabelled_difference_c, gamma, unlabelled_multiplier_c)
    )
    if terms.consistency is not None:
        loss += consistency_weight * jnp.mean(terms.consistency)
    if terms.marginal_kl is not None:
        loss += marginal_weight * jnp.mean(terms.marginal_kl)
    if terms.information is not None:
        loss += information_weight * jnp.mean(terms.information)
    return loss, terms


def _weighted_difference(
    kl: PerExample, group: Bool[Array, "batch"], capacity: float | Scalar, axis_name: str | None
) -> Scalar:
    """Mean KL of a group minus its capacity, multiplied by the group's fraction of the batch."""
    fraction = mean_over_devices(group.astype(kl.dtype), axis_name)
    # Equals fraction * (sum / count - capacity), but is defined for an empty group.
    return mean_over_devices(jnp.where(group, kl, 0), axis_name) - fraction * capacity

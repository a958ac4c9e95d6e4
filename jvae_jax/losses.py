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

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from jvae_jax import sampling
from jvae_jax.types import (
    Classify,
    Decode,
    Encode,
    Images,
    Labels,
    LossTerms,
    PerExample,
    Posterior,
    PRNGKey,
    Scalar,
)


def gaussian_kl(
    mean: Float[Array, "batch latents"], logvar: Float[Array, "batch latents"]
) -> PerExample:
    """KL(N(mean, exp(logvar)) || N(0, 1)), summed over latents: eq. 4 with its sign put right.

        -1/2 sum(1 + logvar - mean^2 - exp(logvar))

    Returns:
        Nats for each example.
    """
    return 0.5 * jnp.sum(mean**2 + jnp.exp(logvar) - 1 - logvar, axis=-1)


def categorical_kl(logits: Float[Array, "batch classes"]) -> PerExample:
    """KL(softmax(logits) || uniform): eq. 9.

        log K + sum_k q_k log q_k,  with 0 log 0 = 0

    Returns:
        Nats for each example, from 0 (uniform) to log K (one-hot).
    """
    log_q = jax.nn.log_softmax(logits)
    q = jnp.exp(log_q)
    return jnp.log(logits.shape[-1]) + jnp.sum(q * jnp.where(q > 0, log_q, 0), axis=-1)


def label_kl(logits: Float[Array, "batch classes"], labels: Labels) -> PerExample:
    """KL between the label's one-hot prior p(c|y) and softmax(logits): eq. 11, -log c_y.

    Returns:
        Nats for each example; 0 where the label is -1 (there is nothing to compare with).
    """
    one_hot = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    return -jnp.sum(jnp.where(one_hot, jax.nn.log_softmax(logits), 0), axis=-1)


def bernoulli_nll(logits: Images, images: Images) -> PerExample:
    """-log p(images | sigmoid(logits)), summed over pixels and channels.

    Args:
        logits: the decoder's output, before the sigmoid.
        images: values in [0, 1].

    Returns:
        Nats for each example.

    Raises:
        ValueError: if the shapes differ.
    """
    _check_same_shape(logits, images)
    # -x log p - (1 - x) log(1 - p) = log(1 + e^l) - x l: one exponential, and finite for every l.
    return _sum_pixels(jax.nn.softplus(logits) - images * logits)


def squared_error(logits: Images, images: Images) -> PerExample:
    """(sigmoid(logits) - images)^2, summed over pixels and channels, for each example.

    Raises:
        ValueError: if the shapes differ.
    """
    _check_same_shape(logits, images)
    return _sum_pixels((jax.nn.sigmoid(logits) - images) ** 2)


def vae(
    encode: Encode, decode: Decode, images: Images, *, gaussian_key: PRNGKey
) -> tuple[Scalar, LossTerms]:
    """The VAE's negative evidence lower bound: eq. 1.

        E_q[-log p(x|z)] + KL(q(z|x) || p(z))

    Args:
        encode: images to a ``Posterior``.
        decode: z to image logits.
        images: (batch, height, width, channels) in [0, 1].
        gaussian_key: noise of z.

    Returns:
        The loss, in nats per image, and its terms for each example.

    References:
        Kingma and Welling, *Auto-Encoding Variational Bayes*, 2014.
    """
    return beta_vae(encode, decode, images, gaussian_key=gaussian_key, beta=1.0)


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
) -> tuple[Scalar, LossTerms]:
    """The conditional VAE with a classifier for the unlabelled (Kingma's M2): eq. 5.

    With L(x, y) = E_q(z|x,y)[-log p(x|z,y)] + KL(q(z|x,y) || p(z)) and a uniform p(y),

        labelled:    L(x, y) + log K - alpha log q(y|x)
        unlabelled:  sum_y q(y|x) L(x, y) + log K - H(q(y|x))

    The sum over classes is exact: every image passes K times, with the same noise.

    Args:
        encode: images and one-hot labels (batch, classes) to a ``Posterior``.
        decode: z beside the one-hot label, (batch, latents + classes), to image logits.
        classify: images to logits of q(y|x).
        images: (batch, height, width, channels) in [0, 1].
        labels: class indices; -1 is unlabelled.
        gaussian_key: noise of z.
        alpha: weight of the classifier's cross-entropy.
        all_labelled: promises that no label is -1, and saves the K passes.

    Returns:
        The loss, in nats per image, and its terms for each example: ``kl_c`` is
        KL(label or q(y|x) || uniform), ``cross_entropy`` is not yet weighted by alpha.

    References:
        Kingma, Rezende, Mohamed and Welling, *Semi-Supervised Learning with Deep Generative
        Models*, 2014.
    """
    _check_labels(images, labels)
    class_logits = classify(images)
    batch, classes = class_logits.shape
    one_hot = jax.nn.one_hot(labels, classes)
    labelled = labels >= 0

    def bound(images: Images, labels: Array, copies: int) -> tuple[Array, Array]:
        posterior = encode(images, labels)
        latents = posterior.mean.shape[-1]
        noise = sampling.standard_normal(gaussian_key, (batch, latents)).repeat(copies, axis=0)
        z = posterior.mean + jnp.exp(0.5 * posterior.logvar) * noise
        reconstruction = bernoulli_nll(decode(jnp.concatenate([z, labels], axis=-1)), images)
        kl_z = gaussian_kl(posterior.mean, posterior.logvar)
        return reconstruction.reshape(batch, copies), kl_z.reshape(batch, copies)

    if all_labelled:
        weights = jnp.ones((batch, 1))
        reconstruction, kl_z = bound(images, one_hot, 1)
    else:
        weights = jnp.where(labelled[:, None], one_hot, jax.nn.softmax(class_logits))
        every_label = jnp.tile(jnp.eye(classes), (batch, 1))
        reconstruction, kl_z = bound(images.repeat(classes, axis=0), every_label, classes)

    reconstruction = jnp.sum(weights * reconstruction, axis=-1)
    kl_z = jnp.sum(weights * kl_z, axis=-1)
    kl_c = jnp.where(labelled, jnp.log(classes), categorical_kl(class_logits))
    cross_entropy = label_kl(class_logits, labels)
    loss = jnp.mean(reconstruction + kl_z + kl_c + alpha * cross_entropy)
    return loss, LossTerms(reconstruction, kl_z, kl_c, cross_entropy)


def beta_vae(
    encode: Encode, decode: Decode, images: Images, *, gaussian_key: PRNGKey, beta: float
) -> tuple[Scalar, LossTerms]:
    """The beta-VAE: eq. 6.

        E_q[-log p(x|z)] + beta KL(q(z|x) || p(z))

    Args and returns as :func:`vae`, with the weight ``beta``.

    References:
        Higgins et al., *beta-VAE: Learning Basic Visual Concepts with a Constrained Variational
        Framework*, 2017.
    """
    terms, _ = _reconstruct(encode, decode, images, gaussian_key)
    return jnp.mean(terms.reconstruction + beta * terms.kl_z), terms


def annealed_vae(
    encode: Encode,
    decode: Decode,
    images: Images,
    *,
    gaussian_key: PRNGKey,
    beta: float,
    capacity_z: float | Scalar,
    axis_name: str | None = None,
) -> tuple[Scalar, LossTerms]:
    """The beta-VAE with an annealed capacity: eq. 7.

        E_q[-log p(x|z)] + beta |KL(q(z|x) || p(z)) - C_z|

    The KL inside |.| is its mean over the batch.

    Args and returns as :func:`vae`, with the weight ``beta`` and ``capacity_z``, C_z in nats.

    References:
        Burgess et al., *Understanding disentangling in beta-VAE*, 2018.
    """
    terms, _ = _reconstruct(encode, decode, images, gaussian_key)
    distance = jnp.abs(_mean(terms.kl_z, axis_name) - capacity_z)
    return jnp.mean(terms.reconstruction) + beta * distance, terms


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
    temperature: float,
    axis_name: str | None = None,
) -> tuple[Scalar, LossTerms]:
    """The Joint-VAE, with a uniform prior of c: eq. 8.

        E_q[-log p(x|z,c)] + beta |KL(q(z|x) || p(z)) - C_z| + gamma |KL(q(c|x) || p(c)) - C_c|

    The KLs inside |.| are means over the batch.

    Args:
        encode: images to a ``Posterior`` with logits.
        decode: z beside the relaxed one-hot c, (batch, latents + classes), to image logits.
        images: (batch, height, width, channels) in [0, 1].
        gaussian_key: noise of z.
        gumbel_key: noise of c.
        beta: weight of z's distance from its capacity.
        gamma: weight of c's distance from its capacity.
        capacity_z: C_z, in nats.
        capacity_c: C_c, in nats; c can't hold more than log K.
        temperature: of the Gumbel-softmax.
        axis_name: the device axis, if any.

    Returns:
        The loss, in nats per image, and its terms for each example.

    Raises:
        ValueError: if the posterior has no logits.

    References:
        Dupont, *Learning Disentangled Joint Continuous and Discrete Representations*, 2018.
    """
    unlabelled = jnp.full(len(images), -1)
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
        temperature=temperature,
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
    temperature: float,
    axis_name: str | None = None,
) -> tuple[Scalar, LossTerms]:
    """The paper's objective, with a label-specific prior of c: eq. 10.

        E_q[-log p(x|z,c)] + beta |KL(q(z|x) || p(z)) - C_z| + gamma |KL(q(c|x) || p(c|y)) - C_c|

    Unlabelled examples keep eq. 9's uniform prior and have a capacity of their own. Labelled and
    unlabelled ones each pay gamma times the distance of their mean KL, weighted by their share of
    the batch: all labelled is eq. 10, none is eq. 8.

    Args and returns as :func:`joint_vae`, and

    Args:
        labels: class indices; -1 is unlabelled.
        capacity_c: C_c of labelled examples, in nats.
        unlabelled_capacity_c: C_c of unlabelled ones, in nats; None: ``capacity_c``.

    Raises:
        ValueError: if the posterior has no logits, or there isn't one label for each image.
    """
    _check_labels(images, labels)
    terms, posterior = _reconstruct(
        encode, decode, images, gaussian_key, gumbel_key=gumbel_key, temperature=temperature
    )
    assert posterior.logits is not None
    labelled = labels >= 0
    kl_c = jnp.where(labelled, label_kl(posterior.logits, labels), categorical_kl(posterior.logits))
    if unlabelled_capacity_c is None:
        unlabelled_capacity_c = capacity_c
    loss = (
        jnp.mean(terms.reconstruction)
        + beta * jnp.abs(_mean(terms.kl_z, axis_name) - capacity_z)
        + gamma * _distance_by_share(kl_c, labelled, capacity_c, axis_name)
        + gamma * _distance_by_share(kl_c, ~labelled, unlabelled_capacity_c, axis_name)
    )
    return loss, terms._replace(kl_c=kl_c)


def _reconstruct(
    encode: Encode,
    decode: Decode,
    images: Images,
    gaussian_key: PRNGKey,
    *,
    gumbel_key: PRNGKey | None = None,
    temperature: float = 1.0,
) -> tuple[LossTerms, Posterior]:
    """Reconstruction from one draw of z, and of c where there is a key for it, and KL of z."""
    posterior = encode(images)
    latents = sampling.gaussian(gaussian_key, posterior.mean, posterior.logvar)
    if gumbel_key is not None:
        if posterior.logits is None:
            raise ValueError("encode must return a Posterior with logits: its logits are None")
        c = sampling.gumbel_softmax(gumbel_key, posterior.logits, temperature)
        latents = jnp.concatenate([latents, c], axis=-1)
    reconstruction = bernoulli_nll(decode(latents), images)
    return LossTerms(reconstruction, gaussian_kl(posterior.mean, posterior.logvar)), posterior


def _distance_by_share(
    kl: PerExample, members: Bool[Array, "batch"], capacity: float | Scalar, axis_name: str | None
) -> Scalar:
    """|mean KL of the members - capacity| times their share of the batch."""
    share = _mean(members, axis_name)
    # share * |sum / count - capacity| without the division, which has no members to divide by at 0.
    return jnp.abs(_mean(jnp.where(members, kl, 0), axis_name) - share * capacity)


def _mean(values: Array, axis_name: str | None) -> Scalar:
    mean = jnp.mean(values)
    return mean if axis_name is None else lax.pmean(mean, axis_name)


def _sum_pixels(values: Images) -> PerExample:
    return jnp.sum(values, axis=(1, 2, 3))


def _check_same_shape(logits: Array, images: Array) -> None:
    if logits.shape != images.shape:
        raise ValueError(
            f"decoded logits {logits.shape} must have the images' shape {images.shape}"
        )


def _check_labels(images: Array, labels: Array) -> None:
    if labels.shape != images.shape[:1]:
        raise ValueError(f"{len(images)} images need as many labels, got shape {labels.shape}")

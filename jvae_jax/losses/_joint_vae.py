"""The objectives with a categorical c beside z: Joint-VAE and ours."""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from jvae_jax import sampling
from jvae_jax.losses._terms import (
    bernoulli_nll,
    categorical_kl,
    check_labels,
    gaussian_kl,
    label_kl,
    mean_over_devices,
    population_weights,
)
from jvae_jax.types import (
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
    reconstruction_loss: ReconstructionLoss = bernoulli_nll,
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
        reconstruction_loss: -log p(x|z,c) of logits and images, for each example, up to a constant.
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
    labelled_fraction: float | None = None,
    augmented_images: Images | None = None,
    consistency_weight: float = 0.0,
    temperature: float,
    reconstruction_loss: ReconstructionLoss = bernoulli_nll,
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
        labelled_fraction: the share of the data set that is labelled, where a batch holds another
            share: reconstruction and KL(z) are then weighted to be those of the data set. Without
            it each example weighs the same.
        augmented_images: the images, slightly distorted, if c is to say the same of both.
        consistency_weight: weight of the cross-entropy of q(c|distorted x) to the label, or where there is
            none to q(c|x), which it doesn't move. Not in the paper.

    Raises:
        ValueError: if the posterior has no logits, or there isn't one label for each image.
    """
    check_labels(images, labels)
    both = images if augmented_images is None else jnp.concatenate([images, augmented_images])
    posterior, batch = encode(both), len(images)
    if posterior.logits is None:
        raise ValueError("encode must return a Posterior with logits: its logits are None")
    mean, logvar, logits = (array[:batch] for array in (*posterior[:2], posterior.logits))
    z = sampling.gaussian(gaussian_key, mean, logvar)
    c = sampling.gumbel_softmax(gumbel_key, logits, temperature)
    labelled = labels >= 0
    kl_c = jnp.where(labelled, label_kl(logits, labels), categorical_kl(logits))
    terms = LossTerms(
        reconstruction=reconstruction_loss(decode(jnp.concatenate([z, c], axis=-1)), images),
        kl_z=gaussian_kl(mean, logvar),
        kl_c=kl_c,
    )
    if augmented_images is not None:
        consistency = _consistency(posterior.logits[batch:], logits, labels)
        terms = terms._replace(consistency=consistency)
    if unlabelled_capacity_c is None:
        unlabelled_capacity_c = capacity_c
    weights = population_weights(labelled, labelled_fraction, axis_name)
    loss = (
        jnp.mean(weights * terms.reconstruction)
        + beta * jnp.abs(mean_over_devices(weights * terms.kl_z, axis_name) - capacity_z)
        + gamma * _distance_by_share(kl_c, labelled, capacity_c, axis_name)
        + gamma * _distance_by_share(kl_c, ~labelled, unlabelled_capacity_c, axis_name)
    )
    if terms.consistency is not None:
        loss += consistency_weight * jnp.mean(terms.consistency)
    return loss, terms


def _consistency(
    augmented_logits: Float[Array, "batch classes"],
    logits: Float[Array, "batch classes"],
    labels: Labels,
) -> PerExample:
    """Cross-entropy of what c says of distorted images, to labels or to what it said before."""
    said = lax.stop_gradient(jax.nn.softmax(logits))
    one_hot = jax.nn.one_hot(labels, logits.shape[-1])
    targets = jnp.where(labels[:, None] >= 0, one_hot, said)
    return -jnp.sum(targets * jax.nn.log_softmax(augmented_logits), axis=-1)


def _distance_by_share(
    kl: PerExample, members: Bool[Array, "batch"], capacity: float | Scalar, axis_name: str | None
) -> Scalar:
    """|mean KL of the members - capacity| times their share of the batch."""
    share = mean_over_devices(members, axis_name)
    # share * |sum / count - capacity| without the division, which has no members to divide by at 0.
    return jnp.abs(mean_over_devices(jnp.where(members, kl, 0), axis_name) - share * capacity)

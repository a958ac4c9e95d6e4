"""Terms of the losses, one value per example."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from jvae_jax.types import (
    Images,
    Labels,
    PerExample,
    Posterior,
    ReconstructionLoss,
    Scalar,
)
from jvae_jax.validation import as_class_indices, as_images, check_equal_shapes


def gaussian_kl(
    mean: Float[Array, "batch latents"], logvar: Float[Array, "batch latents"]
) -> PerExample:
    """KL divergence of a diagonal Gaussian from the standard normal, eq. 4 with its sign corrected.

        KL(N(mean, exp(logvar)) || N(0, 1)) = -1/2 sum(1 + logvar - mean^2 - exp(logvar))

    Args:
        mean: means of the Gaussian, (batch, latents).
        logvar: log-variances of the Gaussian, (batch, latents).

    Returns:
        Nats per image, (batch,), summed over latents.

    Raises:
        ValueError: if the shapes differ.

    References:
        Kingma and Welling, *Auto-Encoding Variational Bayes*, 2014, appendix B.

    Example:
        >>> import jax.numpy as jnp
        >>> from jvae_jax import losses
        >>> mean = jnp.array([[1.0, 0.0], [0.0, 0.0]])
        >>> losses.gaussian_kl(mean, logvar=jnp.zeros((2, 2))).tolist()
        [0.5, 0.0]
    """
    check_equal_shapes(mean=mean, logvar=logvar)
    return 0.5 * jnp.sum(mean**2 + jnp.exp(logvar) - 1 - logvar, axis=-1)


def categorical_kl(logits: Float[Array, "batch classes"]) -> PerExample:
    """KL divergence of a categorical distribution from the uniform one, eq. 9.

        KL(q || uniform) = log K + sum_k q_k log q_k,  q = softmax(logits),  0 log 0 = 0

    Args:
        logits: unnormalised log-probabilities of the K classes, (batch, classes).

    Returns:
        Nats per image, (batch,), from 0 (uniform) to log K (one-hot).

    References:
        Dupont, *Learning Disentangled Joint Continuous and Discrete Representations*, 2018.

    Example:
        >>> import jax.numpy as jnp
        >>> from jvae_jax import losses
        >>> logits = jnp.array([[7.0, 7.0], [1e4, 0.0]])
        >>> [f"{kl:.4f}" for kl in losses.categorical_kl(logits)]
        ['0.0000', '0.6931']
    """
    log_q = jax.nn.log_softmax(logits)
    q = jnp.exp(log_q)
    log_classes = jnp.log(jnp.asarray(logits.shape[-1], logits.dtype))
    return log_classes + jnp.sum(q * jnp.where(q > 0, log_q, 0), axis=-1)


def label_kl(logits: Float[Array, "batch classes"], labels: Labels) -> PerExample:
    """KL divergence of the one-hot prior p(c|y) from a categorical distribution, eq. 11.

        KL(p(c|y) || q) = -log q_y,  q = softmax(logits)

    This equals the cross-entropy of q to the label.

    Args:
        logits: unnormalised log-probabilities of the classes, (batch, classes).
        labels: class indices, (batch,); -1 means unlabelled.

    Returns:
        Nats per image, (batch,); 0 for unlabelled examples.

    Raises:
        ValueError: if ``labels`` aren't integers of shape (batch,) or, outside of ``jit``, one is
            below -1 or isn't a class.

    References:
        Goto and Inoue, *Learning VAE with Categorical Labels for Generating Conditional
        Handwritten Characters*.

    Example:
        >>> import jax.numpy as jnp
        >>> from jvae_jax import losses
        >>> logits, labels = jnp.array([[0.0, 9.0], [9.0, 0.0]]), jnp.array([0, -1])
        >>> losses.label_kl(logits, labels).round(3).tolist()
        [9.0, 0.0]
    """
    examples, classes = logits.shape
    labels = as_class_indices(labels, examples, classes=classes, unlabelled=True)
    one_hot = jax.nn.one_hot(labels, classes, dtype=bool)
    return jnp.sum(jnp.where(one_hot, -jax.nn.log_softmax(logits), 0), axis=-1)


def bernoulli_nll(logits: Images, images: Images) -> PerExample:
    """Negative log-likelihood of images under independent Bernoulli pixels.

        -sum(x log p + (1 - x) log(1 - p)),  p = sigmoid(logits)

    It is the reconstruction term -log p(x|z) of eqs. 1, 5-8 and 10.

    Args:
        logits: decoder output before the sigmoid, (batch, height, width, channels).
        images: floats in [0, 1], (batch, height, width, channels).

    Returns:
        Nats per image, (batch,), summed over pixels and channels.

    Raises:
        ValueError: if the shapes differ, or ``images`` aren't floats.

    References:
        Kingma and Welling, *Auto-Encoding Variational Bayes*, 2014, appendix C.

    Example:
        >>> import jax.numpy as jnp
        >>> from jvae_jax import losses
        >>> logits, images = jnp.zeros((1, 2, 2, 1)), jnp.ones((1, 2, 2, 1))
        >>> [f"{nll:.4f}" for nll in losses.bernoulli_nll(logits, images)]  # 4 log 2
        ['2.7726']
    """
    images = as_images(images)
    if logits.shape != images.shape:
        raise ValueError(
            f"decoded logits {logits.shape} must have the images' shape {images.shape}"
        )
    # log(1 + e^l) - x l is the same sum, but finite for every logit l.
    softplus = jnp.maximum(logits, 0) + jnp.log(1 + jnp.exp(-jnp.abs(logits)))
    return _sum_pixels(softplus - images * logits)


def squared_error(logits: Images, images: Images) -> PerExample:
    """Squared error between sigmoid(logits) and images.

        sum((sigmoid(logits) - x)^2)

    It is the reconstruction term -log p(x|z), up to a constant, of a Gaussian decoder with variance
    1/2.

    Args:
        logits: decoder output before the sigmoid, (batch, height, width, channels).
        images: floats in [0, 1], (batch, height, width, channels).

    Returns:
        Nats per image up to a constant, (batch,), summed over pixels and channels.

    Raises:
        ValueError: if the shapes differ, or ``images`` aren't floats.

    References:
        Kingma and Welling, *Auto-Encoding Variational Bayes*, 2014, appendix C.

    Example:
        >>> import jax.numpy as jnp
        >>> from jvae_jax import losses
        >>> logits, images = jnp.zeros((1, 2, 2, 1)), jnp.ones((1, 2, 2, 1))
        >>> losses.squared_error(logits, images).tolist()
        [1.0]
    """
    images = as_images(images)
    if logits.shape != images.shape:
        raise ValueError(
            f"decoded logits {logits.shape} must have the images' shape {images.shape}"
        )
    return _sum_pixels((jax.nn.sigmoid(logits) - images) ** 2)


def mean_over_devices(values: Array, axis_name: str | None) -> Scalar:
    """Returns the mean of values over the batch and, if given, over the device axis."""
    mean = jnp.mean(values)
    return mean if axis_name is None else lax.pmean(mean, axis_name)


def with_augmented(
    images: Images, augmented_images: Images
) -> Float[Array, "examples height width channels"]:
    """Images and their augmentations, (2 * batch, height, width, channels).

    Raises:
        ValueError: if the augmented images aren't floats of the shape of the others.
    """
    augmented_images = as_images(augmented_images, name="augmented_images")
    check_equal_shapes(augmented_images=augmented_images, images=images)
    return jnp.concatenate([images, augmented_images])


def consistency_loss(
    augmented_logits: Float[Array, "batch classes"],
    logits: Float[Array, "batch classes"],
    labels: Labels,
) -> PerExample:
    """Cross-entropy of q(c|augmented x) to the label, or to q(c|x) if unlabelled."""
    predictions = lax.stop_gradient(jax.nn.softmax(logits))
    one_hot = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    targets = jnp.where(labels[:, None] >= 0, one_hot, predictions)
    return -jnp.sum(targets * jax.nn.log_softmax(augmented_logits), axis=-1)


def marginal_kl(logits: Float[Array, "batch classes"], axis_name: str | None) -> PerExample:
    """sum_c q(c|x) log(q(c) / p(c)), in nats; its mean over the batch is KL(q(c) || p(c))."""
    posterior = jax.nn.softmax(logits)
    marginal = jnp.mean(posterior, axis=0)
    if axis_name is not None:
        marginal = lax.pmean(marginal, axis_name)
    marginal = jnp.maximum(marginal, jnp.finfo(marginal.dtype).tiny)
    return jnp.sum(posterior * jnp.log(marginal * logits.shape[-1]), axis=-1)


def capacity_penalty(
    difference: Scalar, weight: float, multiplier: float | Scalar | None
) -> Scalar:
    """Penalty of the difference KL - C between a KL divergence and its capacity.

    Without a multiplier it is the paper's, a maximum over m from -weight to weight:

        weight |KL - C| = max_m m (KL - C)

    With a multiplier, the maximum is taken near it:

        max_m m (KL - C) - (m - multiplier)^2 / 2,  at m = clip(multiplier + KL - C)

    The derivative with respect to KL is then m, which is continuous, and with respect to the
    multiplier m - multiplier, which is KL - C within the bounds.

    Args:
        difference: KL - C, in nats.
        weight: weight of |KL - C| and bound of m.
        multiplier: from -weight to weight, or None.

    References:
        Rockafellar, *Augmented Lagrangians and Applications of the Proximal Point Algorithm in
        Convex Programming*, 1976.
    """
    if multiplier is None:
        return weight * jnp.abs(difference)
    maximiser = lax.stop_gradient(jnp.clip(multiplier + difference, -weight, weight))
    return maximiser * difference - (maximiser - multiplier) ** 2 / 2


def population_weights(
    labelled: Bool[Array, "batch"],
    labelled_fraction: float | None,
    axis_name: str | None,
    dtype: Any,
) -> PerExample:
    """Importance weights that restore the dataset's labelled fraction in a batch.

    Args:
        labelled: whether each example has a label, (batch,).
        labelled_fraction: labelled fraction of the dataset; None means that of the batch, which
            gives weights of 1.
        axis_name: name of the device axis, or None.
        dtype: floating-point type of the weights.

    Returns:
        Weights, (batch,), with mean 1 if the batch has both labelled and unlabelled examples.
    """
    if labelled_fraction is None:
        return jnp.ones(len(labelled), dtype)
    if isinstance(labelled_fraction, (int, float)) and not 0 <= labelled_fraction <= 1:
        raise ValueError(f"labelled_fraction must be from 0 to 1, got {labelled_fraction}")
    batch_fraction = mean_over_devices(labelled.astype(dtype), axis_name)
    # A fraction of 0 has no examples: its weight is unused, but must not divide by 0.
    return jnp.where(
        labelled,
        labelled_fraction / jnp.where(batch_fraction > 0, batch_fraction, 1),
        (1 - labelled_fraction) / jnp.where(batch_fraction < 1, 1 - batch_fraction, 1),
    )


def check_posterior(posterior: Posterior, examples: int) -> None:
    """Raises ValueError unless mean, logvar and logits have a row for each example."""
    mean, logvar, logits = posterior
    if mean.ndim != 2 or mean.shape != logvar.shape or len(mean) != examples:
        raise ValueError(
            f"encode must return mean and logvar of shape ({examples}, latents), got {mean.shape} "
            f"and {logvar.shape}"
        )
    if logits is not None and (logits.ndim != 2 or len(logits) != examples):
        raise ValueError(
            f"encode must return logits of shape ({examples}, classes), got {logits.shape}"
        )


def check_logits(logits: Array, examples: int) -> None:
    """Raises ValueError unless a classifier's logits have a row for each example."""
    if logits.ndim != 2 or len(logits) != examples:
        raise ValueError(
            f"classify must return logits of shape ({examples}, classes), got {logits.shape}"
        )


def reconstruction_term(
    reconstruction_loss: ReconstructionLoss, logits: Images, images: Images
) -> PerExample:
    """Applies a reconstruction loss.

    Raises:
        ValueError: if it doesn't return one value per image.
    """
    values = reconstruction_loss(logits, images)
    if values.shape != images.shape[:1]:
        raise ValueError(
            f"reconstruction_loss must return one value per image, {images.shape[:1]}, got shape "
            f"{values.shape}"
        )
    return values


def _sum_pixels(values: Images) -> PerExample:
    # XLA on CPU fuses jnp.sum with the mean over the batch into a slow scalar loop; a product with
    # ones avoids that.
    pixels = values.reshape(len(values), -1)
    return jnp.matmul(pixels, jnp.ones(pixels.shape[1], values.dtype), precision="highest")

"""Terms of the losses, one value per example."""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from jvae_jax.types import Images, Labels, PerExample, Scalar


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

    References:
        Kingma and Welling, *Auto-Encoding Variational Bayes*, 2014, appendix B.

    Example:
        >>> import jax.numpy as jnp
        >>> from jvae_jax import losses
        >>> mean = jnp.array([[1.0, 0.0], [0.0, 0.0]])
        >>> losses.gaussian_kl(mean, logvar=jnp.zeros((2, 2))).tolist()
        [0.5, 0.0]
    """
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
    return jnp.log(logits.shape[-1]) + jnp.sum(q * jnp.where(q > 0, log_q, 0), axis=-1)


def label_kl(logits: Float[Array, "batch classes"], labels: Labels) -> PerExample:
    """KL divergence of the one-hot prior p(c|y) from a categorical distribution, eq. 11.

        KL(p(c|y) || q) = -log q_y,  q = softmax(logits)

    This equals the cross-entropy of q to the label.

    Args:
        logits: unnormalised log-probabilities of the classes, (batch, classes).
        labels: class indices, (batch,); -1 means unlabelled.

    Returns:
        Nats per image, (batch,); 0 for unlabelled examples.

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
    one_hot = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    return jnp.sum(jnp.where(one_hot, -jax.nn.log_softmax(logits), 0), axis=-1)


def bernoulli_nll(logits: Images, images: Images) -> PerExample:
    """Negative log-likelihood of images under independent Bernoulli pixels.

        -sum(x log p + (1 - x) log(1 - p)),  p = sigmoid(logits)

    It is the reconstruction term -log p(x|z) of eqs. 1, 5-8 and 10.

    Args:
        logits: decoder output before the sigmoid, (batch, height, width, channels).
        images: values in [0, 1], (batch, height, width, channels).

    Returns:
        Nats per image, (batch,), summed over pixels and channels.

    Raises:
        ValueError: if the shapes differ.

    References:
        Kingma and Welling, *Auto-Encoding Variational Bayes*, 2014, appendix C.

    Example:
        >>> import jax.numpy as jnp
        >>> from jvae_jax import losses
        >>> logits, images = jnp.zeros((1, 2, 2, 1)), jnp.ones((1, 2, 2, 1))
        >>> [f"{nll:.4f}" for nll in losses.bernoulli_nll(logits, images)]  # 4 log 2
        ['2.7726']
    """
    _check_same_shape(logits, images)
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
        images: values in [0, 1], (batch, height, width, channels).

    Returns:
        Nats per image up to a constant, (batch,), summed over pixels and channels.

    Raises:
        ValueError: if the shapes differ.

    References:
        Kingma and Welling, *Auto-Encoding Variational Bayes*, 2014, appendix C.

    Example:
        >>> import jax.numpy as jnp
        >>> from jvae_jax import losses
        >>> logits, images = jnp.zeros((1, 2, 2, 1)), jnp.ones((1, 2, 2, 1))
        >>> losses.squared_error(logits, images).tolist()
        [1.0]
    """
    _check_same_shape(logits, images)
    return _sum_pixels((jax.nn.sigmoid(logits) - images) ** 2)


def mean_over_devices(values: Array, axis_name: str | None) -> Scalar:
    """Returns the mean of values over the batch and, if given, over the device axis."""
    mean = jnp.mean(values)
    return mean if axis_name is None else lax.pmean(mean, axis_name)


def population_weights(
    labelled: Bool[Array, "batch"], labelled_fraction: float | None, axis_name: str | None
) -> PerExample:
    """Importance weights that restore the dataset's labelled fraction in a batch.

    Args:
        labelled: whether each example has a label, (batch,).
        labelled_fraction: labelled fraction of the dataset; None means that of the batch, which
            gives weights of 1.
        axis_name: name of the device axis, or None.

    Returns:
        Weights, (batch,), with mean 1 if the batch has both labelled and unlabelled examples.
    """
    if labelled_fraction is None:
        return jnp.ones(len(labelled))
    batch_fraction = mean_over_devices(labelled, axis_name)
    # A fraction of 0 has no examples: its weight is unused, but must not divide by 0.
    return jnp.where(
        labelled,
        labelled_fraction / jnp.where(batch_fraction > 0, batch_fraction, 1),
        (1 - labelled_fraction) / jnp.where(batch_fraction < 1, 1 - batch_fraction, 1),
    )


def check_labels(images: Array, labels: Array) -> None:
    """Raises ValueError unless ``labels`` has shape (batch,)."""
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"labels must have shape {images.shape[:1]}, one per image, got {labels.shape}"
        )


def _sum_pixels(values: Images) -> PerExample:
    # XLA on CPU fuses jnp.sum with the mean over the batch into a slow scalar loop; a product with
    # ones avoids that.
    pixels = values.reshape(len(values), -1)
    return jnp.matmul(pixels, jnp.ones(pixels.shape[1], values.dtype), precision="highest")


def _check_same_shape(logits: Array, images: Array) -> None:
    if logits.shape != images.shape:
        raise ValueError(
            f"decoded logits {logits.shape} must have the images' shape {images.shape}"
        )

"""The terms of the losses, for each example."""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from jvae_jax.types import Images, Labels, PerExample, Scalar


def gaussian_kl(
    mean: Float[Array, "batch latents"], logvar: Float[Array, "batch latents"]
) -> PerExample:
    """KL(N(mean, exp(logvar)) || N(0, 1)), summed over latents: eq. 4 with its sign put right.

        -1/2 sum(1 + logvar - mean^2 - exp(logvar))

    Returns:
        Nats for each example.

    Example:
        >>> gaussian_kl(jnp.array([[1.0, 0.0], [0.0, 0.0]]), jnp.zeros((2, 2))).tolist()
        [0.5, 0.0]
    """
    return 0.5 * jnp.sum(mean**2 + jnp.exp(logvar) - 1 - logvar, axis=-1)


def categorical_kl(logits: Float[Array, "batch classes"]) -> PerExample:
    """KL(softmax(logits) || uniform): eq. 9.

        log K + sum_k q_k log q_k,  with 0 log 0 = 0

    Returns:
        Nats for each example, from 0 (uniform) to log K (one-hot).

    Example:
        >>> [f"{kl:.4f}" for kl in categorical_kl(jnp.array([[7.0, 7.0], [1e4, 0.0]]))]
        ['0.0000', '0.6931']
    """
    log_q = jax.nn.log_softmax(logits)
    q = jnp.exp(log_q)
    return jnp.log(logits.shape[-1]) + jnp.sum(q * jnp.where(q > 0, log_q, 0), axis=-1)


def label_kl(logits: Float[Array, "batch classes"], labels: Labels) -> PerExample:
    """KL between the label's one-hot prior p(c|y) and softmax(logits): eq. 11, -log c_y.

    Returns:
        Nats for each example; 0 where the label is -1 (there is nothing to compare with).

    Example:
        >>> label_kl(jnp.array([[0.0, 9.0], [9.0, 0.0]]), jnp.array([0, -1])).round(3).tolist()
        [9.0, 0.0]
    """
    one_hot = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    return jnp.sum(jnp.where(one_hot, -jax.nn.log_softmax(logits), 0), axis=-1)


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
    # -x log p - (1 - x) log(1 - p) = log(1 + e^l) - x l, which is finite for every l written so:
    softplus = jnp.maximum(logits, 0) + jnp.log(1 + jnp.exp(-jnp.abs(logits)))
    return _sum_pixels(softplus - images * logits)


def squared_error(logits: Images, images: Images) -> PerExample:
    """(sigmoid(logits) - images)^2, summed over pixels and channels, for each example.

    Raises:
        ValueError: if the shapes differ.
    """
    _check_same_shape(logits, images)
    return _sum_pixels((jax.nn.sigmoid(logits) - images) ** 2)


def mean_over_devices(values: Array, axis_name: str | None) -> Scalar:
    """The mean of this device's values, or of every device's on ``axis_name``."""
    mean = jnp.mean(values)
    return mean if axis_name is None else lax.pmean(mean, axis_name)


def population_weights(
    labelled: Bool[Array, "batch"], labelled_fraction: float | None, axis_name: str | None
) -> PerExample:
    """Weights with which a batch counts as if it held the data set's share of labelled examples.

    Args:
        labelled: which examples have a label.
        labelled_fraction: the share that has one in the data set; None: the batch's own, so that
            all weigh 1.
        axis_name: the device axis, if any.
    """
    if labelled_fraction is None:
        return jnp.ones(len(labelled))
    share = mean_over_devices(labelled, axis_name)
    # Where a batch has none of a kind, that kind's weight isn't used.
    return jnp.where(
        labelled,
        labelled_fraction / jnp.where(share > 0, share, 1),
        (1 - labelled_fraction) / jnp.where(share < 1, 1 - share, 1),
    )


def check_labels(images: Array, labels: Array) -> None:
    """Raises ValueError unless there is one label for each image."""
    if labels.shape != images.shape[:1]:
        raise ValueError(f"{len(images)} images need as many labels, got shape {labels.shape}")


def _sum_pixels(values: Images) -> PerExample:
    # A product with ones: XLA on CPU merges a sum with the batch's mean and adds one by one.
    pixels = values.reshape(len(values), -1)
    return jnp.matmul(pixels, jnp.ones(pixels.shape[1], values.dtype), precision="highest")


def _check_same_shape(logits: Array, images: Array) -> None:
    if logits.shape != images.shape:
        raise ValueError(
            f"decoded logits {logits.shape} must have the images' shape {images.shape}"
        )

"""Marginal log-likelihood by importance sampling."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from jvae_jax import losses, sampling
from jvae_jax.evaluation.metrics import Evaluation
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.models.inference import EVAL_BATCH_SIZE, scale_pixels
from jvae_jax.numerics import default_numerics
from jvae_jax.sampling import example_keys
from jvae_jax.types import PixelsLike, PRNGKey, Scalar, Variables
from jvae_jax.validation import as_pixels


@default_numerics()
def negative_log_likelihood(
    model: Autoencoder,
    variables: Variables,
    images: PixelsLike,
    key: Array,
    *,
    samples: int = 5000,
    batch_size: int = EVAL_BATCH_SIZE,
) -> Float[np.ndarray, "batch"]:
    """Estimates -log p(x) of each image by importance sampling from q(z|x).

        -log p(x) ~= -log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x),  z_k ~ q(z|x)

    For a model with classes, p(x|z) is the mean of p(x|z,c) over all of them, as the prior of c is
    uniform. A conditional model draws the samples of each class from its own q(z|x,c), with the
    same noise. The prior of z is N(0, 1).

    The expectation is an upper bound of -log p(x), the negative ELBO (with c summed exactly) for
    one sample, and approaches -log p(x) as the number of samples grows.

    p(x|z,c) has independent Bernoulli pixels, so this is a likelihood only of binary images, whose
    pixels are 0 or 255. For grey images it is the same expression with values in [0, 1], as often
    published for MNIST; it isn't a density, and not comparable to values of binarised images or in
    bits per dimension.

    Args:
        model: an autoencoder, with or without classes.
        variables: its parameters and batch statistics.
        images: uint8, (batch, height, width, channels).
        key: random key. The noise of an image depends on the key and on its index alone, and that
            of the first samples not on their number.
        samples: number K of samples of z for each image, 1 or more.
        batch_size: number of latents that are decoded at a time, rounded down to whole samples in
            every class, but at least one. It bounds the memory, whatever the number of samples.

    Returns:
        Nats per image, (batch,), of float64.

    Raises:
        ValueError: if the images aren't uint8 of the model's shape, or ``samples`` or
            ``batch_size`` is below 1.

    References:
        Burda, Grosse and Salakhutdinov, *Importance Weighted Autoencoders*, 2016.
    """
    for name, value in (("samples", samples), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} must be 1 or more, got {value}")
    images = as_pixels(images, image_shape=model.image_shape)
    chunk = min(samples, max(1, batch_size // max(model.classes, 1)))
    # A loop on the host, since a compiled one, which may take hours, can't be interrupted.
    log_likelihoods = [
        float(_log_likelihood(model, chunk, variables, image, key, index, samples))
        for index, image in enumerate(images)
    ]
    return -np.array(log_likelihoods, np.float64)


def likelihood_metrics(
    model: Autoencoder,
    variables: Variables,
    images: PixelsLike,
    key: Array,
    *,
    samples: int = 5000,
) -> Evaluation:
    """Averages :func:`negative_log_likelihood` over images.

    Args:
        model: an autoencoder, with or without classes.
        variables: its parameters and batch statistics.
        images: uint8, (batch, height, width, channels); one or more.
        key: random key of the samples.
        samples: number of samples of z for each image, 1 or more.

    Returns:
        - ``nll``: mean of -log p(x), in nats per image
        - ``nll_standard_error``: its standard error due to the choice of images, in nats per image;
          None for a single image
        - ``nll_images``, ``nll_samples``: number of images, and of samples for each

    Raises:
        ValueError: if there are no images, or as :func:`negative_log_likelihood` does.
    """
    values = negative_log_likelihood(model, variables, images, key, samples=samples)
    if not len(values):
        raise ValueError("images must be one or more, got none")
    has_error = len(values) > 1
    return {
        "nll": float(values.mean()),
        "nll_standard_error": float(values.std(ddof=1) / len(values) ** 0.5) if has_error else None,
        "nll_images": len(values),
        "nll_samples": samples,
    }


@partial(jax.jit, static_argnums=(0, 1))
def _log_likelihood(
    model: Autoencoder,
    chunk: int,
    variables: Variables,
    image: Array,
    key: PRNGKey,
    index: Array,
    samples: Array,
) -> Scalar:
    """Estimates log p(x) of one image, decoding ``chunk`` samples in each class at a time."""
    image_key = example_keys(key, 0, index[None]).gaussian[0]
    images = scale_pixels(image[None])
    categories = max(model.classes, 1)
    c = jnp.eye(categories)[:, : model.classes]  # without classes, one empty row
    labels = [c] if model.conditional else []
    encode = nn.apply(lambda bound: bound.encode(images, *labels), model)
    decode = nn.apply(lambda bound, latents: bound.decode(latents), model)
    mean, logvar, _ = encode(variables)  # a row, or one for each class of a conditional model

    def add_chunk(start: Array, log_sum: tuple[Scalar, Scalar]) -> tuple[Scalar, Scalar]:
        numbers = start * chunk + jnp.arange(chunk)
        keys = jax.vmap(partial(jax.random.fold_in, image_key))(numbers)
        noise = sampling.standard_normal(keys, (chunk, mean.shape[-1]))[:, None]
        z = mean + jnp.exp(0.5 * logvar) * noise
        # log p(z) - log q(z|x), in which the constants cancel
        log_ratio = 0.5 * jnp.sum(noise**2 + logvar - z**2, axis=-1)
        latents = jnp.concatenate(
            [
                jnp.broadcast_to(z, (chunk, categories, z.shape[-1])),
                jnp.broadcast_to(c, (chunk, *c.shape)),
            ],
            axis=-1,
        ).reshape(chunk * categories, -1)
        logits = decode(variables, latents)
        nll = losses.bernoulli_nll(logits, jnp.broadcast_to(images, logits.shape))
        log_weights = log_ratio - nll.reshape(chunk, categories)
        log_weights = jnp.where(numbers[:, None] < samples, log_weights, -jnp.inf)
        # Their sum is exp(highest) total: adding in log space would round with every chunk.
        highest, total = log_sum
        new_highest = jnp.maximum(highest, log_weights.max())
        added = jnp.sum(jnp.exp(log_weights - new_highest))
        return new_highest, total * jnp.exp(highest - new_highest) + added

    empty = jnp.float32(-jnp.inf), jnp.float32(0)
    highest, total = lax.fori_loop(0, -(-samples // chunk), add_chunk, empty)
    return (
        highest + jnp.log(total) - jnp.log(jnp.float32(samples)) - jnp.log(jnp.float32(categories))
    )

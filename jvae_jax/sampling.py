"""Random noise and reparameterised sampling.

Every function takes a single key or one key per example, of shape (batch,). In the latter case the
noise of an example depends only on its key, not on the rest of the batch or on how the batch is
sharded over devices.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from jvae_jax.types import Keys, PRNGKey


def _sample(sampler: Callable[..., Array], key: PRNGKey, shape: tuple[int, ...]) -> Array:
    if key.ndim == 0:
        return sampler(key, shape)
    return jax.vmap(lambda example_key: sampler(example_key, shape[1:]))(key)


def standard_normal(key: PRNGKey, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Draws independent N(0, 1) noise; the first axis of ``shape`` is the batch."""
    return _sample(jax.random.normal, key, shape)


def standard_gumbel(key: PRNGKey, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Draws independent Gumbel(0, 1) noise; the first axis of ``shape`` is the batch."""
    return _sample(jax.random.gumbel, key, shape)


def uniform(key: PRNGKey, shape: tuple[int, ...], bound: float) -> Float[Array, "..."]:
    """Draws independent U(-bound, bound) noise; the first axis of ``shape`` is the batch."""
    return _sample(partial(jax.random.uniform, minval=-bound, maxval=bound), key, shape)


def gaussian(
    key: PRNGKey, mean: Float[Array, "batch latents"], logvar: Float[Array, "batch latents"]
) -> Float[Array, "batch latents"]:
    """Draws z ~ N(mean, exp(logvar)) with the reparameterisation trick.

    Args:
        key: a single key or one per example.
        mean: means, (batch, latents).
        logvar: log-variances, (batch, latents).

    Returns:
        Samples, (batch, latents), differentiable in ``mean`` and ``logvar``.

    References:
        Kingma and Welling, *Auto-Encoding Variational Bayes*, 2014.
    """
    return mean + jnp.exp(0.5 * logvar) * standard_normal(key, mean.shape)


def gumbel_softmax(
    key: PRNGKey, logits: Float[Array, "batch classes"], temperature: float
) -> Float[Array, "batch classes"]:
    """Draws relaxed one-hot samples of a categorical distribution.

        c = softmax((logits + Gumbel noise) / temperature)

    Args:
        key: a single key or one per example.
        logits: unnormalised log-probabilities, (batch, classes).
        temperature: above 0; samples approach one-hot vectors as it approaches 0.

    Returns:
        Points on the simplex, (batch, classes), differentiable in ``logits``.

    References:
        Jang, Gu and Poole, *Categorical Reparameterization with Gumbel-Softmax*, 2017.
    """
    return jax.nn.softmax((logits + standard_gumbel(key, logits.shape)) / temperature)


def one_hot_argmax(logits: Float[Array, "batch classes"]) -> Float[Array, "batch classes"]:
    """Returns the most probable class as a one-hot vector, (batch, classes)."""
    return jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1])


PURPOSES = ("init", "train", "test", "samples", "order")
"""Purposes of a run's random keys."""


def purpose_key(seed: int, purpose: str) -> Array:
    """Returns the random key of a run for one purpose, of :data:`PURPOSES`."""
    return jax.random.fold_in(jax.random.key(seed), PURPOSES.index(purpose))


def example_keys(key: Array, step: int | Array, examples: Int[Array, "batch"]) -> Keys:
    """Derives the keys of a training step: ``key`` folded with the step, then with each index.

    Indices refer to the global batch, so the noise doesn't depend on the number of devices.

    Args:
        key: key of the run.
        step: index of the training step.
        examples: indices in the global batch, (batch,).

    Returns:
        One key per example, (batch,), for each source of noise.
    """
    step_key = jax.random.fold_in(key, step)
    keys = jax.vmap(lambda example: jax.random.split(jax.random.fold_in(step_key, example), 3))(
        examples
    )
    return Keys(*jnp.unstack(keys, axis=1))

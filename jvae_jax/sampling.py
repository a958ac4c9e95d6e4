"""Random noise and reparameterised sampling.

Every function takes a single key or one key per example, of shape (batch,). In the latter case the
noise of an example depends only on its key, not on the rest of the batch or on how the batch is
sharded over devices.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from jvae_jax.types import Keys, PRNGKey
from jvae_jax.validation import check_equal_shapes


def _sample(
    sampler: Callable[..., Array], key: PRNGKey, shape: tuple[int, ...], dtype: Any
) -> Array:
    check_key(key, shape[0])
    if key.ndim == 0:
        return sampler(key, shape, dtype)
    return jax.vmap(lambda example_key: sampler(example_key, shape[1:], dtype))(key)


def check_key(key: PRNGKey, examples: int) -> None:
    """Raises ValueError unless this is a typed key, or one for each example."""
    dtype = getattr(key, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        found = type(key).__name__ if dtype is None else f"an array of {dtype}"
        raise ValueError(f"a key must come from jax.random.key(seed), got {found}")
    if key.shape not in ((), (examples,)):
        raise ValueError(
            f"a key must be single, or one for each of {examples} examples, got shape {key.shape}"
        )


def standard_normal(
    key: PRNGKey, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> Float[Array, "..."]:
    """Draws independent N(0, 1) noise; the first axis of ``shape`` is the batch."""
    return _sample(jax.random.normal, key, shape, dtype)


def standard_gumbel(
    key: PRNGKey, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> Float[Array, "..."]:
    """Draws independent Gumbel(0, 1) noise; the first axis of ``shape`` is the batch."""
    return _sample(jax.random.gumbel, key, shape, dtype)


def uniform(
    key: PRNGKey, shape: tuple[int, ...], bound: float, dtype: Any = jnp.float32
) -> Float[Array, "..."]:
    """Draws independent U(-bound, bound) noise; the first axis of ``shape`` is the batch."""
    sampler = partial(jax.random.uniform, minval=-bound, maxval=bound)
    return _sample(sampler, key, shape, dtype)


def gaussian(
    key: PRNGKey, mean: Float[Array, "batch latents"], logvar: Float[Array, "batch latents"]
) -> Float[Array, "batch latents"]:
    """Draws z ~ N(mean, exp(logvar)) with the reparameterisation trick.

    Args:
        key: a single key or one per example.
        mean: means, (batch, latents).
        logvar: log-variances, (batch, latents).

    Returns:
        Samples, (batch, latents), of the dtype of ``mean``, differentiable in ``mean`` and
        ``logvar``.

    Raises:
        ValueError: if the shapes differ, or ``key`` is neither.

    References:
        Kingma and Welling, *Auto-Encoding Variational Bayes*, 2014.
    """
    check_equal_shapes(mean=mean, logvar=logvar)
    return mean + jnp.exp(0.5 * logvar) * standard_normal(key, mean.shape, mean.dtype)


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
        Points on the simplex, (batch, classes), of the dtype of ``logits`` and differentiable in
        them.

    Raises:
        ValueError: if ``temperature`` is a number that isn't above 0, or ``key`` is neither.

    References:
        Jang, Gu and Poole, *Categorical Reparameterization with Gumbel-Softmax*, 2017.
    """
    if isinstance(temperature, (int, float)) and not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    noise = standard_gumbel(key, logits.shape, logits.dtype)
    return jax.nn.softmax((logits + noise) / temperature)


def prior_latents(
    key: PRNGKey, examples: int, latents: int, classes: int
) -> Float[Array, "examples inputs"]:
    """Draws z from N(0, 1) and a one-hot c from the uniform prior.

    Args:
        key: a single key or one per example.
        examples: number of draws.
        latents: number of dimensions of z.
        classes: number of classes of c.

    Returns:
        z concatenated with c, (examples, latents + classes).
    """
    # The highest of independent values is at a uniform index.
    noise = standard_normal(key, (examples, latents + classes))
    return jnp.concatenate([noise[:, :latents], one_hot_argmax(noise[:, latents:])], axis=-1)


def one_hot_argmax(logits: Float[Array, "batch classes"]) -> Float[Array, "batch classes"]:
    """Returns the most probable class as a one-hot vector, (batch, classes)."""
    return jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=logits.dtype)


PURPOSES = ("init", "train", "test", "samples", "order", "neighbours")
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

    def keys_of(example: Array) -> Keys:
        key = jax.random.fold_in(step_key, example)
        # Split into 4, an older jax would change the first three, and with them resumed runs.
        return Keys(*jax.random.split(key, 3), prior=jax.random.fold_in(key, 3))

    return jax.vmap(keys_of)(examples)

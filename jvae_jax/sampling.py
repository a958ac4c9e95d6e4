"""Reparameterised draws. The key comes first and is never defaulted.

Every function takes either one key or one key for each example (shape ``(batch,)``). With the
latter, an example's noise depends on its own key alone: not on the batch around it, and not on how
the batch is split over devices.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from jvae_jax.types import Keys, PRNGKey


def _draw(draw: Callable[..., Array], key: PRNGKey, shape: tuple[int, ...]) -> Array:
    if key.ndim == 0:
        return draw(key, shape)
    return jax.vmap(lambda example_key: draw(example_key, shape[1:]))(key)


def standard_normal(key: PRNGKey, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Draws independent N(0, 1) noise of ``shape``, whose first axis is the batch."""
    return _draw(jax.random.normal, key, shape)


def standard_gumbel(key: PRNGKey, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Draws independent Gumbel(0, 1) noise of ``shape``, whose first axis is the batch."""
    return _draw(jax.random.gumbel, key, shape)


def uniform(key: PRNGKey, shape: tuple[int, ...], bound: float) -> Float[Array, "..."]:
    """Draws independent U(-bound, bound) noise of ``shape``, whose first axis is the batch."""
    return _draw(partial(jax.random.uniform, minval=-bound, maxval=bound), key, shape)


def gaussian(
    key: PRNGKey, mean: Float[Array, "batch latents"], logvar: Float[Array, "batch latents"]
) -> Float[Array, "batch latents"]:
    """Draws z ~ N(mean, exp(logvar)), differentiably in both.

    References:
        Kingma and Welling, *Auto-Encoding Variational Bayes*, 2014.
    """
    return mean + jnp.exp(0.5 * logvar) * standard_normal(key, mean.shape)


def gumbel_softmax(
    key: PRNGKey, logits: Float[Array, "batch classes"], temperature: float
) -> Float[Array, "batch classes"]:
    """Draws a relaxed one-hot c ~ softmax((logits + Gumbel noise) / temperature).

    Args:
        key: one key, or one for each example.
        logits: unnormalised log-probabilities.
        temperature: above 0; the nearer to 0, the nearer the draws are to one-hot.

    Returns:
        Points on the simplex, differentiable in ``logits``.

    References:
        Jang, Gu and Poole, *Categorical Reparameterization with Gumbel-Softmax*, 2017.
    """
    return jax.nn.softmax((logits + standard_gumbel(key, logits.shape)) / temperature)


def one_hot_argmax(logits: Float[Array, "batch classes"]) -> Float[Array, "batch classes"]:
    """The likeliest c, as one-hot."""
    return jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1])


def example_keys(key: Array, step: int | Array, examples: Int[Array, "batch"]) -> Keys:
    """A step's noise: the run's key folded with the step, then with each example's index.

    The index is the one in the global batch, so that one device and eight draw the same noise.
    """
    step_key = jax.random.fold_in(key, step)
    keys = jax.vmap(lambda example: jax.random.split(jax.random.fold_in(step_key, example), 3))(
        examples
    )
    return Keys(*jnp.unstack(keys, axis=1))

"""``jvae evaluate``, from a clone."""

from jvae_jax.commands import evaluate

evaluate.main()

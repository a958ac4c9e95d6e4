"""``jvae generate``, from a clone."""

from jvae_jax.commands import generate

generate.main()

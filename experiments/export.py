"""``jvae export``, from a clone."""

from jvae_jax.commands import export

export.main()

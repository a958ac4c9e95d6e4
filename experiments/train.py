"""``jvae train``, from a clone."""

from jvae_jax.commands import train

train.main()

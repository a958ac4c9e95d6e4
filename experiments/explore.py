"""``jvae explore``, from a clone."""

from jvae_jax.commands import explore

explore.main()

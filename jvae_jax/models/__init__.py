"""Linen modules: encoder, decoder, classifier and the autoencoder that combines them."""

from jvae_jax.models.autoencoder import Autoencoder, Classifier, Decoder, Encoder

__all__ = ["Autoencoder", "Classifier", "Decoder", "Encoder"]

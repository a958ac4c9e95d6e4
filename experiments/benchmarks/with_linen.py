"""The same networks from linen's layers, without this library's optimisations."""

from typing import cast

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jvae_jax import Posterior
from jvae_jax.models.autoencoder import FILTERS, HIDDEN


class LinenAutoencoder(nn.Module):
    """Drop-in replacement for ``jvae_jax.Autoencoder`` in training and evaluation."""

    image_shape: tuple[int, int, int]
    latents: int = 10
    classes: int = 10
    conditional: bool = False
    train: bool = False
    axis_name: str | None = None

    def setup(self) -> None:
        height, width, channels = self.image_shape
        conv = {"kernel_size": (4, 4), "strides": (2, 2), "use_bias": False}
        self.convs = [nn.Conv(FILTERS, padding=1, **conv) for _ in range(3)]
        self.flat = nn.Dense(HIDDEN, use_bias=False)
        self.heads = [nn.Dense(size) for size in (self.latents, self.latents, self.classes)]
        self.dense = [
            nn.Dense(size, use_bias=False) for size in (HIDDEN, height * width * FILTERS // 64)
        ]
        self.transposed = [nn.ConvTranspose(FILTERS, **conv) for _ in range(2)]
        self.last = nn.ConvTranspose(channels, (4, 4), (2, 2))
        self.norms = [
            nn.BatchNorm(not self.train, momentum=0.9, axis_name=self.axis_name) for _ in range(8)
        ]

    def encode(self, images: Array) -> Posterior:
        activations = images
        for conv, norm in zip(self.convs, self.norms[:3], strict=True):
            activations = nn.relu(norm(conv(activations)))
        hidden = nn.relu(self.norms[3](self.flat(activations.reshape(len(images), -1))))
        mean, logvar, logits = (head(hidden) for head in self.heads)
        return Posterior(mean, logvar, logits)

    def decode(self, latents: Array) -> Array:
        height, width, _ = self.image_shape
        activations = latents
        for dense, norm in zip(self.dense, self.norms[4:6], strict=True):
            activations = nn.relu(norm(dense(activations)))
        activations = activations.reshape(-1, height // 8, width // 8, FILTERS)
        for conv, norm in zip(self.transposed, self.norms[6:], strict=True):
            activations = nn.relu(norm(conv(activations)))
        return self.last(activations)

    def __call__(self, images: Array) -> Array:
        mean, _, logits = self.encode(images)
        return self.decode(jnp.concatenate([mean, cast(Array, logits)], axis=-1))

"""The paper's encoder and decoder as linen modules, and the model that joins them.

Initialisation and batch normalisation follow PyTorch's defaults, which the paper's experiments
lean on. Modules take floats in [0, 1] and give image *logits*: the sigmoid at the decoder's end is
inside the loss. With ``dtype=jnp.bfloat16`` they compute in bfloat16; parameters, batch
normalisation's statistics and what comes out are float32 all the same.

``print(Autoencoder(...).tabulate(jax.random.key(0), images))`` shows every layer.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.nn.initializers import variance_scaling
from jaxtyping import Float

from jvae_jax.models import layers
from jvae_jax.sampling import one_hot_argmax
from jvae_jax.types import Images, Posterior

FILTERS = 32
HIDDEN = 256
STRIDE = 8
"""How much three stride-2 layers shrink an image."""

_uniform = variance_scaling(1 / 3, "fan_in", "uniform")
"""U(-1, 1) / sqrt(fan_in): the weights of PyTorch's Linear and Conv2d."""
_uniform_transpose = variance_scaling(1 / 3, "fan_in", "uniform", in_axis=-1, out_axis=-2)
"""The same for ConvTranspose2d, whose fan-in PyTorch counts over the output channels."""


def _uniform_bias(fan_in: int) -> Callable[..., Array]:
    """U(-1, 1) / sqrt(fan_in): PyTorch's biases."""
    bound = fan_in**-0.5

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class _Head(nn.Module):
    """A linear layer with bias, not followed by batch normalisation."""

    features: int
    dtype: Any = None

    @nn.compact
    def __call__(self, hidden: Float[Array, "batch hidden"]) -> Float[Array, "batch features"]:
        bias_init = _uniform_bias(hidden.shape[-1])
        dense = nn.Dense(self.features, dtype=self.dtype, kernel_init=_uniform, bias_init=bias_init)
        return layers.at_least_float32(dense(hidden))


class Trunk(nn.Module):
    """Three stride-2 convolutions of 32 4x4 filters, flattened to a linear layer of 256."""

    train: bool = False
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(
        self, images: Images, labels: Float[Array, "examples classes"] | None = None
    ) -> Float[Array, "examples 256"]:
        """Maps images, with one-hot labels beside their features where given, to 256 features.

        Of several labels for each image, those of the first image come first.
        """
        activations = images
        for _ in range(3):
            activations = layers.Conv(FILTERS, _uniform, self.dtype)(activations)
            activations = layers.NormReLU(self.train, self.axis_name)(activations)
        hidden = activations.reshape(images.shape[0], -1)
        if labels is not None:
            hidden = hidden.repeat(labels.shape[0] // images.shape[0], axis=0)
            hidden = jnp.concatenate([hidden, labels], axis=-1)
        hidden = nn.Dense(HIDDEN, use_bias=False, dtype=self.dtype, kernel_init=_uniform)(hidden)
        return layers.NormReLU(self.train, self.axis_name)(hidden)


class Encoder(nn.Module):
    """q(z|x) and, with classes, q(c|x): the trunk and a linear head for each parameter."""

    latents: int
    classes: int = 0
    train: bool = False
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(
        self, images: Images, labels: Float[Array, "examples classes"] | None = None
    ) -> Posterior:
        hidden = Trunk(self.train, self.axis_name, self.dtype)(images, labels)
        mean = _Head(self.latents, self.dtype, name="mean")(hidden)
        logvar = _Head(self.latents, self.dtype, name="logvar")(hidden)
        logits = _Head(self.classes, self.dtype, name="logits")(hidden) if self.classes else None
        return Posterior(mean, logvar, logits)


class Classifier(nn.Module):
    """q(y|x): the trunk and a linear head of class logits."""

    classes: int
    train: bool = False
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, images: Images) -> Float[Array, "batch classes"]:
        hidden = Trunk(self.train, self.axis_name, self.dtype)(images)
        return _Head(self.classes, self.dtype, name="logits")(hidden)


class Decoder(nn.Module):
    """The encoder in reverse: two linear layers, then three transposed convolutions."""

    image_shape: tuple[int, int, int]
    train: bool = False
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, latents: Float[Array, "batch inputs"]) -> Images:
        height, width, channels = self.image_shape
        rows, columns = height // STRIDE, width // STRIDE
        hidden = latents
        for features in (HIDDEN, rows * columns * FILTERS):
            dense = nn.Dense(features, use_bias=False, dtype=self.dtype, kernel_init=_uniform)
            hidden = layers.NormReLU(self.train, self.axis_name)(dense(hidden))
        activations = hidden.reshape(-1, rows, columns, FILTERS)
        for _ in range(2):
            activations = layers.ConvTranspose(FILTERS, _uniform_transpose, self.dtype)(activations)
            activations = layers.NormReLU(self.train, self.axis_name)(activations)
        logits = layers.ConvTranspose(channels, _uniform_transpose, self.dtype)(activations)
        bias = self.param("bias", _uniform_bias(16 * channels), (channels,))
        return layers.at_least_float32(logits) + bias


class Autoencoder(nn.Module):
    """Encoder, decoder and, if conditional, classifier: everything a loss calls.

    Attributes:
        image_shape: height, width, channels; the first two divisible by 8.
        latents: size of the continuous z.
        classes: size of the categorical c, or of the labels where conditional; 0 for neither.
        conditional: a CVAE: labels enter encoder and decoder, and a classifier reads them.
        fixed_latents: how many of z, the last ones, are always 0, and so are their KLs.
        train: batch normalisation by the batch's own statistics (``mutable=["batch_stats"]``).
        axis_name: the device axis over which training statistics are taken.
        dtype: of the arithmetic; None: of what goes in and the parameters.

    Raises:
        ValueError: at the first call, if the image size isn't divisible by 8.
    """

    image_shape: tuple[int, int, int]
    latents: int = 10
    classes: int = 10
    conditional: bool = False
    fixed_latents: int = 0
    train: bool = False
    axis_name: str | None = None
    dtype: Any = None

    def setup(self) -> None:
        height, width, _ = self.image_shape
        if height % STRIDE or width % STRIDE or not height * width:
            raise ValueError(f"image height and width must be divisible by 8, got {height}x{width}")
        mode = {"train": self.train, "axis_name": self.axis_name, "dtype": self.dtype}
        self.encoder = Encoder(self.latents, 0 if self.conditional else self.classes, **mode)
        self.decoder = Decoder(self.image_shape, **mode)
        if self.conditional:
            self.classifier = Classifier(self.classes, **mode)

    def encode(
        self, images: Images, labels: Float[Array, "examples classes"] | None = None
    ) -> Posterior:
        """Images, and one-hot labels if conditional, to the posterior's parameters.

        Of several labels for each image, those of the first image come first.
        """
        posterior = self.encoder(images, labels)
        return posterior._replace(
            mean=self._fix(posterior.mean), logvar=self._fix(posterior.logvar)
        )

    def decode(self, latents: Float[Array, "batch inputs"]) -> Images:
        """z, beside a one-hot c or label where there are classes, to image logits."""
        return self.decoder(self._fix(latents))

    def _fix(self, values: Float[Array, "batch inputs"]) -> Float[Array, "batch inputs"]:
        free = self.latents - self.fixed_latents
        return values.at[:, free : self.latents].set(0) if self.fixed_latents else values

    def classify(self, images: Images) -> Float[Array, "batch classes"]:
        """Images to the conditional model's logits of q(y|x)."""
        return self.classifier(images)

    def infer(self, images: Images) -> Posterior:
        """Reads z and c from images alone; a conditional model goes by the label it reads."""
        if not self.conditional:
            return self.encode(images)
        logits = self.classify(images)
        return self.encode(images, one_hot_argmax(logits))._replace(logits=logits)

    def __call__(self, images: Images) -> Images:
        """Reconstructs images, as logits, from the mean z and the likeliest c."""
        posterior = self.infer(images)
        if posterior.logits is None:
            return self.decode(posterior.mean)
        c = one_hot_argmax(posterior.logits)
        return self.decode(jnp.concatenate([posterior.mean, c], axis=-1))

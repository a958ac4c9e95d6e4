"""Encoder, decoder and classifier of the paper as linen modules, and their combination.

Initialisation and batch normalisation follow PyTorch's defaults, as in the paper's experiments.
Modules take images in [0, 1] and return image logits; losses apply the sigmoid. With
``dtype=jnp.bfloat16`` modules compute in bfloat16, while parameters, the statistics of batch
normalisation and outputs remain float32.

``print(Autoencoder(...).tabulate(jax.random.key(0), images))`` lists all layers.
"""

from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.nn.initializers import variance_scaling
from jaxtyping import Float

from jvae_jax.models import layers
from jvae_jax.sampling import one_hot_argmax
from jvae_jax.types import Images, Posterior

FILTERS = 32
"""Filters of each hidden convolution."""
HIDDEN = 256
"""Units of each hidden linear layer of fixed size."""
DEPTH = 3
"""Stride-2 convolutions of a network in the paper."""

_kernel_init = variance_scaling(1 / 3, "fan_in", "uniform")
"""U(-1, 1) / sqrt(fan_in), PyTorch's default for the weights of Linear and Conv2d."""
_transpose_kernel_init = variance_scaling(1 / 3, "fan_in", "uniform", in_axis=-1, out_axis=-2)
"""The same for ConvTranspose2d, for which PyTorch counts fan_in over the output channels."""


def _bias_init(fan_in: int) -> Callable[..., Array]:
    """U(-1, 1) / sqrt(fan_in), PyTorch's default for biases."""
    bound = fan_in**-0.5

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def padding(size: int, depth: int) -> tuple[int, int]:
    """Padding before and after that makes a height or width a multiple of 2^depth."""
    total = -size % 2**depth
    return total // 2, total - total // 2


def padded(size: int, depth: int) -> int:
    """Height or width of a padded image."""
    return size + sum(padding(size, depth))


def pad_to_stride(images: Images, depth: int) -> Float[Array, "batch rows columns channels"]:
    """Pads images with 0 so that height and width are multiples of 2^depth."""
    height, width = images.shape[1:3]
    return jnp.pad(images, ((0, 0), padding(height, depth), padding(width, depth), (0, 0)))


class _Head(nn.Module):
    """Linear output layer with bias and without batch normalisation."""

    features: int
    dtype: Any = None

    @nn.compact
    def __call__(self, hidden: Float[Array, "batch hidden"]) -> Float[Array, "batch features"]:
        bias_init = _bias_init(hidden.shape[-1])
        dense = nn.Dense(
            self.features, dtype=self.dtype, kernel_init=_kernel_init, bias_init=bias_init
        )
        return layers.at_least_float32(dense(hidden))


class Trunk(nn.Module):
    """Stride-2 convolutions with 32 filters of 4x4, and a linear layer with 256 units."""

    train: bool = False
    axis_name: str | None = None
    dtype: Any = None
    depth: int = DEPTH

    @nn.compact
    def __call__(
        self, images: Images, labels: Float[Array, "examples classes"] | None = None
    ) -> Float[Array, "examples 256"]:
        """Computes features of images, conditioned on one-hot labels if given.

        Args:
            images: values in [0, 1], (batch, height, width, channels).
            labels: one-hot labels, (examples, classes), where examples is a multiple of batch;
                several labels of one image are consecutive. None means examples = batch.

        Returns:
            Features, (examples, 256).
        """
        activations = pad_to_stride(images, self.depth)
        for _ in range(self.depth):
            activations = layers.Conv(FILTERS, _kernel_init, self.dtype)(activations)
            activations = layers.NormReLU(self.train, self.axis_name)(activations)
        hidden = activations.reshape(images.shape[0], -1)
        if labels is not None:
            hidden = hidden.repeat(labels.shape[0] // images.shape[0], axis=0)
            hidden = jnp.concatenate([hidden, labels], axis=-1)
        dense = nn.Dense(HIDDEN, use_bias=False, dtype=self.dtype, kernel_init=_kernel_init)
        return layers.NormReLU(self.train, self.axis_name)(dense(hidden))


class Encoder(nn.Module):
    """q(z|x) and, with classes, q(c|x): the trunk and one linear head per parameter."""

    latents: int
    classes: int = 0
    train: bool = False
    axis_name: str | None = None
    dtype: Any = None
    depth: int = DEPTH

    @nn.compact
    def __call__(
        self, images: Images, labels: Float[Array, "examples classes"] | None = None
    ) -> Posterior:
        hidden = Trunk(self.train, self.axis_name, self.dtype, self.depth)(images, labels)
        mean = _Head(self.latents, self.dtype, name="mean")(hidden)
        logvar = _Head(self.latents, self.dtype, name="logvar")(hidden)
        logits = _Head(self.classes, self.dtype, name="logits")(hidden) if self.classes else None
        return Posterior(mean, logvar, logits)


class Classifier(nn.Module):
    """q(y|x): the trunk and a linear head with class logits."""

    classes: int
    train: bool = False
    axis_name: str | None = None
    dtype: Any = None
    depth: int = DEPTH

    @nn.compact
    def __call__(self, images: Images) -> Float[Array, "batch classes"]:
        hidden = Trunk(self.train, self.axis_name, self.dtype, self.depth)(images)
        return _Head(self.classes, self.dtype, name="logits")(hidden)


class Decoder(nn.Module):
    """p(x|z,c): two linear layers and transposed convolutions, which mirror the encoder."""

    image_shape: tuple[int, int, int]
    train: bool = False
    axis_name: str | None = None
    dtype: Any = None
    depth: int = DEPTH

    @nn.compact
    def __call__(self, latents: Float[Array, "batch inputs"]) -> Images:
        height, width, channels = self.image_shape
        (top, _), (left, _) = (padding(size, self.depth) for size in (height, width))
        rows, columns = (padded(size, self.depth) >> self.depth for size in (height, width))
        hidden = latents
        for features in (HIDDEN, rows * columns * FILTERS):
            dense = nn.Dense(features, use_bias=False, dtype=self.dtype, kernel_init=_kernel_init)
            hidden = layers.NormReLU(self.train, self.axis_name)(dense(hidden))
        activations = hidden.reshape(-1, rows, columns, FILTERS)
        for _ in range(self.depth - 1):
            activations = layers.ConvTranspose(FILTERS, _transpose_kernel_init, self.dtype)(
                activations
            )
            activations = layers.NormReLU(self.train, self.axis_name)(activations)
        logits = layers.ConvTranspose(channels, _transpose_kernel_init, self.dtype)(activations)
        bias = self.param("bias", _bias_init(16 * channels), (channels,))
        logits = logits[:, top : top + height, left : left + width]
        return layers.at_least_float32(logits) + bias


class Autoencoder(nn.Module):
    """Encoder, decoder and, if conditional, classifier, with the methods that losses call.

    Attributes:
        image_shape: height, width and channels. If height or width isn't a multiple of 2^depth,
            images are padded with 0 to the next one, and decoded logits are cropped.
        latents: number of dimensions of the continuous z.
        classes: number of classes of the categorical c, or of the labels if conditional; 0 for a
            continuous model.
        conditional: whether the model is a CVAE: encoder and decoder take a one-hot label, and a
            classifier predicts it.
        fixed_latents: number of trailing dimensions of z that are fixed at 0, as is their KL
            divergence.
        train: whether batch normalisation uses the statistics of the batch and updates the running
            ones; apply the model with ``mutable=["batch_stats"]``.
        axis_name: name of the device axis over which batch statistics are taken, or None.
        dtype: type of the computation; None means the type of inputs and parameters.
        depth: number of convolutions of each network, which halve height and width.
    """

    image_shape: tuple[int, int, int]
    latents: int = 10
    classes: int = 10
    conditional: bool = False
    fixed_latents: int = 0
    train: bool = False
    axis_name: str | None = None
    dtype: Any = None
    depth: int = DEPTH

    def setup(self) -> None:
        names = ("train", "axis_name", "dtype", "depth")
        mode: dict[str, Any] = {name: getattr(self, name) for name in names}
        self.encoder = Encoder(self.latents, 0 if self.conditional else self.classes, **mode)
        self.decoder = Decoder(self.image_shape, **mode)
        if self.conditional:
            self.classifier = Classifier(self.classes, **mode)

    def encode(
        self, images: Images, labels: Float[Array, "examples classes"] | None = None
    ) -> Posterior:
        """Computes the parameters of the posterior.

        Args:
            images: values in [0, 1], (batch, height, width, channels).
            labels: one-hot labels of a conditional model, (examples, classes), where examples is a
                multiple of batch; several labels of one image are consecutive. None otherwise.

        Returns:
            Parameters of q(z|x) or q(z|x,y), (examples, latents), and, unless the model is
            conditional or continuous, logits of q(c|x), (examples, classes).
        """
        posterior = self.encoder(images, labels)
        return posterior._replace(
            mean=self._zero_fixed_latents(posterior.mean),
            logvar=self._zero_fixed_latents(posterior.logvar),
        )

    def decode(self, latents: Float[Array, "batch inputs"]) -> Images:
        """Decodes latents into image logits.

        Args:
            latents: z or, for a model with classes, z concatenated with the (relaxed) one-hot c or
                label, (batch, latents [+ classes]).

        Returns:
            Logits, (batch, height, width, channels).
        """
        return self.decoder(self._zero_fixed_latents(latents))

    def _zero_fixed_latents(
        self, values: Float[Array, "batch inputs"]
    ) -> Float[Array, "batch inputs"]:
        start = self.latents - self.fixed_latents
        return values.at[:, start : self.latents].set(0) if self.fixed_latents else values

    def classify(self, images: Images) -> Float[Array, "batch classes"]:
        """Computes the logits of q(y|x) of a conditional model, (batch, classes)."""
        return self.classifier(images)

    def classify_decoded(
        self, latents: Float[Array, "batch inputs"]
    ) -> Float[Array, "batch classes"]:
        """Computes the logits of q(c|x) of the images decoded from latents, (batch, classes).

        Gradients reach the decoder alone: the parameters of q(c|x) are constants, as it would
        otherwise learn to recognise decoded images instead of characters. It normalises with its
        running statistics, the decoder with those of the batch, and neither updates them.
        """

        def decode(model: Autoencoder) -> Images:
            return nn.sigmoid(model.decode(latents))

        def classify(model: Autoencoder, images: Images) -> Array | None:
            return model.classify(images) if model.conditional else model.encode(images).logits

        model = self.clone(parent=None)
        images, _ = nn.apply(decode, model, mutable=["batch_stats"])(self.variables)
        fixed = lax.stop_gradient(self.variables)
        return cast(Array, nn.apply(classify, model.clone(train=False))(fixed, images))

    def infer(self, images: Images) -> Posterior:
        """Computes the posterior from images alone.

        A conditional model is conditioned on the most probable label of its classifier, and the
        posterior's logits are those of the classifier.
        """
        if not self.conditional:
            return self.encode(images)
        logits = self.classify(images)
        return self.encode(images, one_hot_argmax(logits))._replace(logits=logits)

    def __call__(self, images: Images) -> Images:
        """Reconstructs images, as logits, from the mean of z and the most probable c."""
        posterior = self.infer(images)
        if posterior.logits is None:
            return self.decode(posterior.mean)
        c = one_hot_argmax(posterior.logits)
        return self.decode(jnp.concatenate([posterior.mean, c], axis=-1))

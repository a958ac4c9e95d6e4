"""The networks' layers, lowered for each platform, where training spends its time.

Stride-2 4x4 convolution and transposed convolution: XLA's CPU convolutions lose their threads
inside a loop body, where training runs, and are about ten times slower there; matrix products are
not. So both layers have two lowerings of one set of parameters (HWIO, as everywhere in JAX):
products on CPU, the platform's own convolution elsewhere. Values and gradients agree to float32
rounding.

Seen from blocks of 2x2 pixels it is a 2x2 convolution of stride 1. Pad the image by 1 and fold each
block into channels, and the window of output i is blocks i and i + 1:

    padded pixel     0 1 | 2 3 | 4 5 | 6 7        output 0 = taps 0 1 2 3 of pixels 0 1 2 3
    block             0     1     2     3         output 1 = taps 0 1 2 3 of pixels 2 3 4 5

That is one product with its four taps, pairs of rows by pairs of columns, side by side: in the rows
of the matrix (patches) or in its columns (shifted and added afterwards), whichever copies fewer
numbers. The transposed convolution is the same product transposed.

Batch normalisation followed by ReLU is one layer with a gradient of its own, which passes over the
activations less often than the one derived automatically. Its statistics are float32 at least, in
whatever type its activations come and leave.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from flax.typing import Initializer
from jax import Array, lax
from jaxtyping import Float

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_MOMENTUM, _EPSILON = 0.9, 1e-5


def conv_products(
    images: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "4 4 inputs features"],
) -> Float[Array, "batch height//2 width//2 features"]:
    """Stride-2 4x4 convolution, padding 1, as a matrix product."""
    inputs, features = kernel.shape[2:]
    blocks = _blocks(images)
    taps = kernel.reshape(2, 2, 2, 2, inputs, features).transpose(0, 2, 1, 3, 4, 5)
    taps = taps.reshape(4, 4 * inputs, features)
    if 4 * inputs <= features:
        return _product(jnp.concatenate(_windows(blocks), axis=-1), jnp.concatenate(taps))
    products = jnp.split(_product(blocks, jnp.concatenate(taps, axis=-1)), 4, axis=-1)
    shifted = [_windows(product)[tap] for tap, product in enumerate(products)]
    return shifted[0] + shifted[1] + shifted[2] + shifted[3]


def conv_transpose_products(
    images: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "4 4 inputs features"],
) -> Float[Array, "batch 2*height 2*width features"]:
    """Stride-2 4x4 transposed convolution, padding SAME, as a matrix product."""
    batch, height, width, _ = images.shape
    outputs = jax.ShapeDtypeStruct((batch, 2 * height, 2 * width, kernel.shape[-1]), images.dtype)
    mirrored = kernel[::-1, ::-1].swapaxes(2, 3)
    transposed = jax.linear_transpose(lambda images: conv_products(images, mirrored), outputs)
    return transposed(images)[0]


def _blocks(
    images: Float[Array, "batch height width channels"],
) -> Float[Array, "batch height//2+1 width//2+1 4*channels"]:
    """Pads by 1 and folds each block of 2x2 pixels into channels."""
    pixels = [
        jnp.pad(
            images[:, 1 - row :: 2, 1 - column :: 2],
            ((0, 0), (1 - row, row), (1 - column, column), (0, 0)),
        )
        for row in (0, 1)
        for column in (0, 1)
    ]
    return jnp.concatenate(pixels, axis=-1)


def _windows(blocks: Array) -> list[Array]:
    """The four shifts by 0 or 1 row and column that lie inside."""
    _, height, width, _ = blocks.shape
    return [blocks[:, i : i + height - 1, j : j + width - 1] for i in (0, 1) for j in (0, 1)]


def _product(arrays: Array, matrix: Float[Array, "inputs features"]) -> Array:
    # Contracting several axes at once, as the matrix's gradient would, costs a copy in XLA on CPU.
    rows = arrays.reshape(-1, arrays.shape[-1])
    return (rows @ matrix).reshape(*arrays.shape[:-1], matrix.shape[-1])


def conv_native(
    images: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "4 4 inputs features"],
) -> Float[Array, "batch height//2 width//2 features"]:
    """Stride-2 4x4 convolution, padding 1, as XLA has it."""
    return lax.conv_general_dilated(
        images, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=_DIMENSIONS
    )


def conv_transpose_native(
    images: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "4 4 inputs features"],
) -> Float[Array, "batch 2*height 2*width features"]:
    """Stride-2 4x4 transposed convolution, padding SAME, as XLA has it."""
    return lax.conv_transpose(images, kernel, (2, 2), "SAME", dimension_numbers=_DIMENSIONS)


class Conv(nn.Module):
    """Stride-2 4x4 convolution with padding 1 and no bias: halves height and width."""

    features: int
    kernel_init: Initializer
    dtype: Any = None

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width inputs"]) -> Array:
        kernel = self.param("kernel", self.kernel_init, (4, 4, images.shape[-1], self.features))
        images, kernel = promote_dtype(images, kernel, dtype=self.dtype)
        return lax.platform_dependent(images, kernel, cpu=conv_products, default=conv_native)


class ConvTranspose(nn.Module):
    """Stride-2 4x4 transposed convolution, padding SAME, no bias: doubles height and width."""

    features: int
    kernel_init: Initializer
    dtype: Any = None

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width inputs"]) -> Array:
        kernel = self.param("kernel", self.kernel_init, (4, 4, images.shape[-1], self.features))
        images, kernel = promote_dtype(images, kernel, dtype=self.dtype)
        return lax.platform_dependent(
            images, kernel, cpu=conv_transpose_products, default=conv_transpose_native
        )


def at_least_float32(array: Array) -> Array:
    """The same values; bfloat16 becomes float32."""
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


Features = Float[Array, "features"]


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def norm_relu(
    activations: Float[Array, "... features"],
    scale: Features,
    bias: Features,
    axis_name: str | None,
) -> tuple[Float[Array, "... features"], Features, Features]:
    """ReLU of the activations normalised by their own mean and variance, scaled and shifted.

    Args:
        activations: of a batch.
        scale, bias: what each feature is multiplied by and shifted by once normalised.
        axis_name: the device axis over which mean and variance are taken too, if any.

    Returns:
        The result, the mean and the (biased) variance; only the first has a gradient.

    References:
        Ioffe and Szegedy, *Batch Normalization: Accelerating Deep Network Training by Reducing
        Internal Covariate Shift*, 2015.
    """
    return _norm_relu_forward(activations, scale, bias, axis_name)[0]


def _norm_relu_forward(
    activations: Array, scale: Array, bias: Array, axis_name: str | None
) -> tuple[tuple[Array, Array, Array], tuple[Array, ...]]:
    axes = tuple(range(activations.ndim - 1))
    wide = at_least_float32(activations)
    moments = jnp.mean(wide, axes), jnp.mean(wide**2, axes)
    mean, square = moments if axis_name is None else lax.pmean(moments, axis_name)
    variance = jnp.maximum(square - mean**2, 0)
    inverse_deviation = lax.rsqrt(variance + _EPSILON)
    slope = scale * inverse_deviation
    shift = bias - slope * mean
    outputs = nn.relu(slope * wide + shift).astype(activations.dtype)
    return (outputs, mean, variance), (activations, mean, inverse_deviation, slope, shift)


def _norm_relu_backward(
    axis_name: str | None, residuals: tuple[Array, ...], gradients: tuple[Array, Array, Array]
) -> tuple[Array, Array, Array]:
    activations, mean, inverse_deviation, slope, shift = residuals
    axes = tuple(range(activations.ndim - 1))
    count = activations.size // activations.shape[-1]
    wide = at_least_float32(activations)
    gradient = jnp.where(slope * wide + shift > 0, at_least_float32(gradients[0]), 0)
    of_bias = jnp.sum(gradient, axes)
    of_scale = (jnp.sum(gradient * wide, axes) - mean * of_bias) * inverse_deviation
    means = of_scale / count, of_bias / count
    along, across = means if axis_name is None else lax.pmean(means, axis_name)
    # slope (gradient - across - normalised * along), with normalised written out.
    slant = along * inverse_deviation
    of_activations = slope * (gradient - slant * wide + (slant * mean - across))
    return of_activations.astype(activations.dtype), of_scale, of_bias


norm_relu.defvjp(_norm_relu_forward, _norm_relu_backward)


class NormReLU(nn.Module):
    """Batch normalisation (PyTorch's momentum 0.1 and epsilon 1e-5), then ReLU.

    Attributes:
        train: normalise by the batch's own statistics, and average them into ``batch_stats``.
        axis_name: the device axis over which the batch's statistics are taken, if any.
    """

    train: bool
    axis_name: str | None

    @nn.compact
    def __call__(self, activations: Float[Array, "... features"]) -> Float[Array, "... features"]:
        shape = activations.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        if not self.train:
            slope = scale * lax.rsqrt(running_var.value + _EPSILON)
            shift = bias - slope * running_mean.value
            return nn.relu(slope * activations + shift).astype(activations.dtype)
        result: Any = norm_relu(activations, scale, bias, self.axis_name)
        outputs, mean, var = result
        if not self.is_initializing():
            running_mean.value = _MOMENTUM * running_mean.value + (1 - _MOMENTUM) * mean
            running_var.value = _MOMENTUM * running_var.value + (1 - _MOMENTUM) * var
        return outputs

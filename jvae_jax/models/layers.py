"""Layers of the networks, with convolutions lowered per platform.

Convolutions: Inside a loop body, where training runs, XLA's CPU convolution is single-threaded and
about ten times slower than outside; matrix products keep their threads. The stride-2 4x4
convolution and transposed convolution therefore have two lowerings with the same parameters (HWIO
kernels): matrix products on CPU, XLA's convolution elsewhere. Values and gradients agree to float32
rounding.

A stride-2 4x4 convolution is a stride-1 2x2 convolution over blocks of 2x2 pixels. After padding
the image by 1 and moving each block into channels (space to depth), the window of output i consists
of blocks i and i + 1:

    padded pixel     0 1 | 2 3 | 4 5 | 6 7        output 0 = taps 0 1 2 3 of pixels 0 1 2 3
    block             0     1     2     3         output 1 = taps 0 1 2 3 of pixels 2 3 4 5

This is one matrix product with the kernel's four block taps stacked along the rows of the matrix
(im2col: windows are concatenated before the product) or along its columns (products are shifted
and added afterwards), whichever copies less. The transposed convolution is the transpose of the
same product.

Batch normalisation: Normalisation and ReLU form one layer with a custom gradient, which makes fewer
passes over the activations than automatic differentiation. Its statistics are at least float32,
whatever the type of the activations.
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
EPSILON = 1e-5
"""Added to variances by batch normalisation."""
_MOMENTUM = 0.9


def conv_matmul(
    images: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "4 4 inputs features"],
) -> Float[Array, "batch height//2 width//2 features"]:
    """Stride-2 4x4 convolution with padding 1, as a matrix product."""
    inputs, features = kernel.shape[2:]
    blocks = _space_to_depth(images)
    taps = kernel.reshape(2, 2, 2, 2, inputs, features).transpose(0, 2, 1, 3, 4, 5)
    taps = taps.reshape(4, 4 * inputs, features)
    if 4 * inputs <= features:
        return _matmul(jnp.concatenate(_block_shifts(blocks), axis=-1), jnp.concatenate(taps))
    products = jnp.split(_matmul(blocks, jnp.concatenate(taps, axis=-1)), 4, axis=-1)
    shifted = [_block_shifts(product)[tap] for tap, product in enumerate(products)]
    return shifted[0] + shifted[1] + shifted[2] + shifted[3]


def conv_transpose_matmul(
    images: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "4 4 inputs features"],
) -> Float[Array, "batch 2*height 2*width features"]:
    """Stride-2 4x4 transposed convolution with padding SAME, as a matrix product."""
    batch, height, width, _ = images.shape
    outputs = jax.ShapeDtypeStruct((batch, 2 * height, 2 * width, kernel.shape[-1]), images.dtype)
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    transposed = jax.linear_transpose(lambda images: conv_matmul(images, flipped), outputs)
    return transposed(images)[0]


def _space_to_depth(
    images: Float[Array, "batch height width channels"],
) -> Float[Array, "batch height//2+1 width//2+1 4*channels"]:
    """Pads images by 1 and moves each block of 2x2 pixels into channels."""
    pixels = [
        jnp.pad(
            images[:, 1 - row :: 2, 1 - column :: 2],
            ((0, 0), (1 - row, row), (1 - column, column), (0, 0)),
        )
        for row in (0, 1)
        for column in (0, 1)
    ]
    return jnp.concatenate(pixels, axis=-1)


def _block_shifts(blocks: Array) -> list[Array]:
    """Views of the blocks shifted by 0 or 1 rows and columns, without padding."""
    _, height, width, _ = blocks.shape
    return [blocks[:, i : i + height - 1, j : j + width - 1] for i in (0, 1) for j in (0, 1)]


def _matmul(arrays: Array, matrix: Float[Array, "inputs features"]) -> Array:
    # Flattened: the matrix's gradient would otherwise contract several axes, which costs a copy in
    # XLA on CPU.
    rows = arrays.reshape(-1, arrays.shape[-1])
    return (rows @ matrix).reshape(*arrays.shape[:-1], matrix.shape[-1])


def conv_native(
    images: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "4 4 inputs features"],
) -> Float[Array, "batch height//2 width//2 features"]:
    """Stride-2 4x4 convolution with padding 1, as XLA's convolution."""
    return lax.conv_general_dilated(
        images, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=_DIMENSIONS
    )


def conv_transpose_native(
    images: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "4 4 inputs features"],
) -> Float[Array, "batch 2*height 2*width features"]:
    """Stride-2 4x4 transposed convolution with padding SAME, as XLA's convolution."""
    return lax.conv_transpose(images, kernel, (2, 2), "SAME", dimension_numbers=_DIMENSIONS)


class Conv(nn.Module):
    """Stride-2 4x4 convolution with padding 1 and no bias, which halves height and width."""

    features: int
    kernel_init: Initializer
    dtype: Any = None

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width inputs"]) -> Array:
        shape = 4, 4, images.shape[-1], self.features
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        images, kernel = promote_dtype(images, kernel, dtype=self.dtype)
        if self.is_initializing():  # the result isn't used, and this takes least time to trace
            return conv_native(images, kernel)
        return lax.platform_dependent(images, kernel, cpu=conv_matmul, default=conv_native)


class ConvTranspose(nn.Module):
    """Stride-2 4x4 transposed convolution without bias, which doubles height and width."""

    features: int
    kernel_init: Initializer
    dtype: Any = None

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width inputs"]) -> Array:
        shape = 4, 4, images.shape[-1], self.features
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        images, kernel = promote_dtype(images, kernel, dtype=self.dtype)
        if self.is_initializing():  # as in Conv
            return conv_transpose_native(images, kernel)
        return lax.platform_dependent(
            images, kernel, cpu=conv_transpose_matmul, default=conv_transpose_native
        )


def at_least_float32(array: Array) -> Array:
    """Promotes types narrower than float32, such as bfloat16, to float32."""
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


Features = Float[Array, "features"]


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def norm_relu(
    activations: Float[Array, "... features"],
    scale: Features,
    bias: Features,
    axis_name: str | None,
) -> tuple[Float[Array, "... features"], Features, Features]:
    """Batch normalisation with the statistics of the batch, followed by ReLU.

        relu(scale * (activations - mean) / sqrt(variance + epsilon) + bias)

    Args:
        activations: inputs, (..., features).
        scale: factor of each normalised feature, (features,).
        bias: offset of each normalised feature, (features,).
        axis_name: name of the device axis over which mean and variance are taken too, or None.

    Returns:
        The outputs, (..., features), and the mean and biased variance, (features,), through which
        no gradient flows.

    References:
        Ioffe and Szegedy, *Batch Normalization: Accelerating Deep Network Training by Reducing
        Internal Covariate Shift*, 2015.
    """
    return _norm_relu_forward(activations, scale, bias, axis_name)[0]


def _norm_relu_forward(
    activations: Array, scale: Array, bias: Array, axis_name: str | None
) -> tuple[tuple[Array, Array, Array], tuple[Array, ...]]:
    axes = tuple(range(activations.ndim - 1))
    promoted = at_least_float32(activations)
    moments = jnp.mean(promoted, axes), jnp.mean(promoted**2, axes)
    mean, square = moments if axis_name is None else lax.pmean(moments, axis_name)
    variance = jnp.maximum(square - mean**2, 0)
    inverse_deviation = lax.rsqrt(variance + EPSILON)
    slope = scale * inverse_deviation
    shift = bias - slope * mean
    outputs = nn.relu(slope * promoted + shift).astype(activations.dtype)
    return (outputs, mean, variance), (activations, mean, inverse_deviation, slope, shift)


def _norm_relu_backward(
    axis_name: str | None, residuals: tuple[Array, ...], gradients: tuple[Array, Array, Array]
) -> tuple[Array, Array, Array]:
    activations, mean, inverse_deviation, slope, shift = residuals
    axes = tuple(range(activations.ndim - 1))
    count = activations.size // activations.shape[-1]
    promoted = at_least_float32(activations)
    gradient = jnp.where(slope * promoted + shift > 0, at_least_float32(gradients[0]), 0)
    bias_gradient = jnp.sum(gradient, axes)
    scale_gradient = (jnp.sum(gradient * promoted, axes) - mean * bias_gradient) * inverse_deviation
    mean_gradients = scale_gradient / count, bias_gradient / count
    mean_scale_gradient, mean_bias_gradient = (
        mean_gradients if axis_name is None else lax.pmean(mean_gradients, axis_name)
    )
    # slope * (gradient - mean_bias_gradient - normalised * mean_scale_gradient), expanded with
    # normalised = (activations - mean) * inverse_deviation.
    correction = mean_scale_gradient * inverse_deviation
    activations_gradient = slope * (
        gradient - correction * promoted + (correction * mean - mean_bias_gradient)
    )
    return activations_gradient.astype(activations.dtype), scale_gradient, bias_gradient


norm_relu.defvjp(_norm_relu_forward, _norm_relu_backward)


class NormReLU(nn.Module):
    """Batch normalisation with PyTorch's momentum (0.1) and epsilon (1e-5), followed by ReLU.

    Attributes:
        train: normalise with the statistics of the batch and update the running statistics in
            ``batch_stats``.
        axis_name: name of the device axis over which batch statistics are taken, or None.
    """

    train: bool
    axis_name: str | None

    @nn.compact
    def __call__(self, activations: Float[Array, "... features"]) -> Float[Array, "... features"]:
        shape = activations.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        if not self.train:
            slope = scale * lax.rsqrt(running_var.value + EPSILON)
            shift = bias - slope * running_mean.value
            return nn.relu(slope * activations + shift).astype(activations.dtype)
        result: Any = norm_relu(activations, scale, bias, self.axis_name)
        outputs, mean, var = result
        if not self.is_initializing():
            count = activations.size // activations.shape[-1]
            if self.axis_name is not None:
                count *= lax.psum(1, self.axis_name)
            unbiased_var = var * (count / max(count - 1, 1))
            running_mean.value = _MOMENTUM * running_mean.value + (1 - _MOMENTUM) * mean
            running_var.value = _MOMENTUM * running_var.value + (1 - _MOMENTUM) * unbiased_var
        return outputs

"""Stride-2 4x4 convolution and transposed convolution, lowered for each platform.

XLA's CPU convolutions lose their threads inside a loop body, where training spends its time, and
run about ten times slower there; matrix products do not. So both layers have two lowerings of one
set of parameters (HWIO, as everywhere in JAX): products on CPU, the platform's own convolution
elsewhere. Values and gradients agree to float32 rounding.

Seen from blocks of 2x2 pixels, both layers are the same thing, a 2x2 convolution of stride 1. Pad
the image by 1 and fold each block into channels, and the window of output i is blocks i and i + 1:

    padded pixel     0 1 | 2 3 | 4 5 | 6 7        output 0 = taps 0 1 2 3 of pixels 0 1 2 3
    block             0     1     2     3         output 1 = taps 0 1 2 3 of pixels 2 3 4 5

The transposed convolution runs the other way: each block of the output, padded by 1, sees the two
inputs next to it, and the padding is cut off at the end:

    padded output    0 1 | 2 3 | 4 5 | 6 7        outputs 2 3 = taps 3 2 of input 1 + 1 0 of input 0
    block             0     1     2     3         outputs 4 5 = taps 3 2 of input 2 + 1 0 of input 1
    inputs around   pad,0  0,1   1,2   2,pad

The 2x2 convolution is one product, with its four taps side by side: in the rows of the matrix
(patches) or in its columns (shifted and added afterwards), whichever copies fewer numbers.
"""

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Initializer
from jax import Array, lax
from jaxtyping import Float

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def conv_products(
    images: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "4 4 inputs features"],
) -> Float[Array, "batch height//2 width//2 features"]:
    """Stride-2 4x4 convolution, padding 1, as a matrix product."""
    batch, height, width, inputs = images.shape
    rows, columns = height // 2 + 1, width // 2 + 1
    padded = _pad(images).reshape(batch, rows, 2, columns, 2, inputs)
    blocks = padded.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, 4 * inputs)
    taps = kernel.reshape(2, 2, 2, 2, inputs, -1).transpose(0, 2, 1, 3, 4, 5)
    return _conv_2x2(blocks, taps.reshape(2, 2, 4 * inputs, -1))


def conv_transpose_products(
    images: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "4 4 inputs features"],
) -> Float[Array, "batch 2*height 2*width features"]:
    """Stride-2 4x4 transposed convolution, padding SAME, as a matrix product."""
    batch, height, width, inputs = images.shape
    features = kernel.shape[-1]
    taps = kernel.reshape(2, 2, 2, 2, inputs, features)[:, ::-1, :, ::-1]
    taps = taps.transpose(0, 2, 4, 1, 3, 5)
    blocks = _conv_2x2(_pad(images), taps.reshape(2, 2, inputs, 4 * features))
    blocks = blocks.reshape(batch, height + 1, width + 1, 2, 2, features)
    padded = blocks.transpose(0, 1, 3, 2, 4, 5)
    return padded.reshape(batch, 2 * height + 2, 2 * width + 2, features)[:, 1:-1, 1:-1]


def _conv_2x2(
    images: Float[Array, "batch height width inputs"], taps: Float[Array, "2 2 inputs features"]
) -> Float[Array, "batch height-1 width-1 features"]:
    """2x2 convolution without padding."""
    inputs, features = taps.shape[2:]
    if inputs <= features:
        return jnp.concatenate(_windows(images), axis=-1) @ taps.reshape(4 * inputs, features)
    columns = taps.transpose(2, 0, 1, 3).reshape(inputs, 4 * features)
    products = jnp.split(images @ columns, 4, axis=-1)
    shifted = [_windows(product)[tap] for tap, product in enumerate(products)]
    return shifted[0] + shifted[1] + shifted[2] + shifted[3]


def _windows(images: Array) -> list[Array]:
    """The four shifts by 0 or 1 row and column that lie inside."""
    _, height, width, _ = images.shape
    return [images[:, i : i + height - 1, j : j + width - 1] for i in (0, 1) for j in (0, 1)]


def _pad(images: Array) -> Array:
    return jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))


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

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width inputs"]) -> Array:
        kernel = self.param("kernel", self.kernel_init, (4, 4, images.shape[-1], self.features))
        return lax.platform_dependent(images, kernel, cpu=conv_products, default=conv_native)


class ConvTranspose(nn.Module):
    """Stride-2 4x4 transposed convolution, padding SAME, no bias: doubles height and width."""

    features: int
    kernel_init: Initializer

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width inputs"]) -> Array:
        kernel = self.param("kernel", self.kernel_init, (4, 4, images.shape[-1], self.features))
        return lax.platform_dependent(
            images, kernel, cpu=conv_transpose_products, default=conv_transpose_native
        )

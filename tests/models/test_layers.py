"""Layers compared with XLA's convolutions and linen's layers."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jvae_jax.models import layers

SIZES = [
    # batch, height, width, inputs, features
    (2, 8, 8, 1, 32),
    (3, 16, 8, 32, 32),
    (1, 4, 12, 5, 3),
    (5, 6, 2, 3, 1),
]


def make_arguments(batch, height, width, inputs, features):
    images, kernel, weights = jax.random.split(jax.random.key(0), 3)
    return (
        jax.random.normal(images, (batch, height, width, inputs)),
        jax.random.normal(kernel, (4, 4, inputs, features)),
        weights,
    )


@partial(jax.jit, static_argnums=0)
def value_and_gradients(function, images, kernel, weights_key):
    outputs = function(images, kernel)
    weights = jax.random.normal(weights_key, outputs.shape)
    loss = lambda images, kernel: jnp.sum(weights * function(images, kernel))  # noqa: E731
    return outputs, *jax.grad(loss, argnums=(0, 1))(images, kernel)


@pytest.mark.parametrize("size", SIZES)
def test_convolution_matches_linen(size):
    arguments = make_arguments(*size)
    result = value_and_gradients(layers.conv_matmul, *arguments)
    linen = nn.Conv(size[-1], (4, 4), (2, 2), padding=1, use_bias=False)
    expected = value_and_gradients(
        lambda images, kernel: linen.apply({"params": {"kernel": kernel}}, images), *arguments
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), result, expected
    )


@pytest.mark.parametrize("size", SIZES)
def test_transposed_convolution_matches_linen(size):
    arguments = make_arguments(*size)
    result = value_and_gradients(layers.conv_transpose_matmul, *arguments)
    linen = nn.ConvTranspose(size[-1], (4, 4), (2, 2), use_bias=False)
    expected = value_and_gradients(
        lambda images, kernel: linen.apply({"params": {"kernel": kernel}}, images), *arguments
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), result, expected
    )


@pytest.mark.parametrize(
    ("matmul", "native"),
    [
        (layers.conv_matmul, layers.conv_native),
        (layers.conv_transpose_matmul, layers.conv_transpose_native),
    ],
)
def test_lowerings_agree(matmul, native):
    images, kernel, _ = make_arguments(3, 8, 8, 4, 6)
    np.testing.assert_allclose(matmul(images, kernel), native(images, kernel), rtol=1e-4, atol=1e-4)


def test_transposed_convolution_of_single_pixel():
    """One input pixel gives the flipped kernel on the 4x4 outputs around its 2x2 block."""
    images = jnp.zeros((1, 3, 3, 1)).at[0, 1, 1, 0].set(2.0)
    kernel = jnp.arange(16.0).reshape(4, 4, 1, 1)
    outputs = layers.conv_transpose_matmul(images, kernel)[0, :, :, 0]
    expected = np.zeros((6, 6))
    expected[1:5, 1:5] = 2 * np.arange(16.0).reshape(4, 4)[::-1, ::-1]
    np.testing.assert_array_equal(outputs, expected)


def test_cpu_lowering_uses_matmul():
    layer = layers.Conv(8, nn.initializers.ones)
    images = jnp.ones((1, 8, 8, 3))
    variables = layer.init(jax.random.key(0), images)
    compiled = jax.jit(layer.apply).lower(variables, images).compile().as_text()
    assert compiled is not None
    assert " dot(" in compiled
    assert " convolution(" not in compiled


@pytest.mark.parametrize("shape", [(12, 6), (3, 4, 2, 5)])
def test_norm_relu_matches_linen(shape):
    """Values, gradients of activations, scale and bias, and running statistics are equal."""
    activations, scale, bias, weights = (
        jax.random.normal(key, shape[start:])
        for key, start in zip(jax.random.split(jax.random.key(0), 4), (0, -1, -1, 0), strict=True)
    )
    activations = 3 * activations + 2
    stats = {"mean": jnp.ones(shape[-1]), "var": jnp.full(shape[-1], 2.0)}

    def loss(params, activations, layer, activation):
        variables = {"params": params, "batch_stats": stats}
        outputs, updates = layer.apply(variables, activations, mutable=["batch_stats"])
        return jnp.sum(weights * activation(outputs)), (activation(outputs), updates["batch_stats"])

    linen = nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5)
    params = {"scale": scale, "bias": bias}
    gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    result = gradient(params, activations, layers.NormReLU(train=True, axis_name=None), lambda x: x)
    (expected_loss, (outputs, updates)), gradients = gradient(params, activations, linen, nn.relu)
    # As in PyTorch, and unlike in linen, the running variance is that of unbiased estimates.
    count = activations.size // shape[-1]
    updates["var"] = 1.8 + (updates["var"] - 1.8) * count / (count - 1)
    expected = (expected_loss, (outputs, updates)), gradients
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), result, expected
    )


def test_norm_relu_of_constant_activations_is_finite():
    """Rounding must not make the variance of a constant feature negative."""
    activations = jnp.full((7, 1), 1234.567)
    outputs, _, variance = layers.norm_relu(activations, jnp.ones(1), jnp.ones(1), None)
    assert variance >= 0
    np.testing.assert_allclose(outputs, 1.0, atol=0.5)

"""Export of the networks as ONNX, by jax2onnx."""

# pyright: reportMissingImports=false

import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jvae_jax.models import layers
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.trained_model import TrainedModel

ENCODER, DECODER = "encoder.onnx", "decoder.onnx"


def can_export_onnx() -> bool:
    """Returns whether jax2onnx is installed."""
    return importlib.util.find_spec("jax2onnx") is not None


def export_onnx(model: TrainedModel, folder: Path) -> None:
    """Exports both networks as ONNX in float32, for batches of any size.

    ``encoder.onnx`` maps ``images``, (batch, height, width, channels) in [0, 1], to ``mean`` and
    ``logvar`` of q(z|x), (batch, latents), and, with classes, ``probabilities`` of q(c|x), (batch,
    classes). ``decoder.onnx`` maps ``z``, (batch, latents), and, with classes, one-hot ``c``,
    (batch, classes), to ``images``.

    Args:
        model: trained model.
        folder: existing folder of the two files.

    Raises:
        ModuleNotFoundError: if jax2onnx isn't installed.
        OSError: if a file can't be written.
    """
    from jax2onnx import to_onnx

    # Its warnings concern shapes of intermediate values, which ONNX infers.
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    network, variables = model.network.clone(dtype=None), model.variables
    infer, decode = nn.apply(Autoencoder.infer, network), nn.apply(Autoencoder.decode, network)

    def encoder(images: Array) -> tuple[Array, ...]:
        posterior = infer(variables, images)
        if posterior.logits is None:
            return posterior.mean, posterior.logvar
        return posterior.mean, posterior.logvar, jax.nn.softmax(posterior.logits)

    def decoder(*latents: Array) -> Array:
        return jax.nn.sigmoid(decode(variables, jnp.concatenate(latents, axis=-1)))

    encoder_outputs = ["mean", "logvar"]
    decoder_inputs = {"z": (network.latents,)}
    if model.has_classes:
        encoder_outputs.append("probabilities")
        decoder_inputs["c"] = (network.classes,)
    for name, function, inputs, outputs in (
        (ENCODER, encoder, {"images": network.image_shape}, encoder_outputs),
        (DECODER, decoder, decoder_inputs, ["images"]),
    ):
        to_onnx(
            _with_native_convolutions(function),
            [("batch", *shape) for shape in inputs.values()],
            input_names=list(inputs),
            output_names=outputs,
            return_mode="file",
            output_path=folder / name,
        )


def _with_native_convolutions(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function with native convolutions instead of the matrix products used on CPU."""
    native: dict[type, Callable[..., Array]] = {
        layers.Conv: layers.conv_native,
        layers.ConvTranspose: layers.conv_transpose_native,
    }

    def intercept(method: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if type(module) in native:
            return native[type(module)](args[0], module.get_variable("params", "kernel"))
        return method(*args, **kwargs)

    def intercepted(*args: Array) -> Any:
        with nn.intercept_methods(intercept):
            return function(*args)

    return intercepted

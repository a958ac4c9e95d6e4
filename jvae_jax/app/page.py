"""The page: one HTML file in which a trained model runs, without a server or other files."""

import base64
import html
import json
import logging
from importlib import resources
from string import Template
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from jvae_jax.data.framing import Framing
from jvae_jax.models.autoencoder import padded, padding
from jvae_jax.models.layers import EPSILON
from jvae_jax.style_controls import FACTORS, MIN_R2, UNITS
from jvae_jax.trained_model import TrainedModel

logger = logging.getLogger(__name__)

_SCRIPTS = ("network.js", "framing.js", "drawing.js", "page.js")
_NO_INK = Framing(extent=1, row=0.5, column=0.5, background=0, ink=255, thickness=0.1)
"""Framing of a model that generates blank images."""

_PER_CLASS = ("intercepts", "weights", "quadratic", "lowest", "highest")
"""Values of the style controls that each class has."""

Layer = dict[str, Any]
"""Operation and sizes of a layer, and its arrays until they are collected."""


def build_page(model: TrainedModel) -> str:
    """Builds a page to explore a trained model in a browser.

    Sliders set the style of all characters, by name where the model has style controls; a character
    that is drawn or uploaded is recognised, and sets the style too. The networks run in the
    browser, and nothing is sent anywhere.

    Args:
        model: trained model.

    Returns:
        A self-contained HTML document.
    """
    is_grey = model.network.image_shape[2] == 1
    if model.has_classes and is_grey and model.style_controls is None:
        logger.info(
            "without sliders for slant, thickness, width and height; evaluate --disentanglement "
            "fits what they need"
        )
    networks = _networks(model)
    layers = [layer for network in networks.values() for layer in network]
    arrays = [layer.pop(name) for layer in layers for name in ("kernel", "bias")]
    weights = np.concatenate([np.ravel(array) for array in arrays]).astype("<f4")
    classes = "Any character in any style" if model.has_classes else "Characters in any style"
    trained_on = f"trained on {model.trained_on}" if model.trained_on else model.name
    values = {
        "title": model.name or "jvae_jax",
        "heading": classes,
        "subtitle": f"A variational auto-encoder {trained_on}. It runs in this browser alone.",
    }
    files = resources.files("jvae_jax.app")
    return Template(files.joinpath("index.html").read_text(encoding="utf-8")).substitute(
        {name: html.escape(text) for name, text in values.items()},
        style=files.joinpath("page.css").read_text(encoding="utf-8"),
        # "</script>" in a name would end the element.
        model=json.dumps(_description(model, networks)).replace("<", "\\u003c"),
        weights=base64.b64encode(weights.tobytes()).decode(),
        script='"use strict";\n'
        + "\n".join(files.joinpath(name).read_text(encoding="utf-8") for name in _SCRIPTS),
    )


def _description(model: TrainedModel, networks: dict[str, list[Layer]]) -> dict[str, Any]:
    """All of the model but its weights, as JSON."""
    height, width, _ = model.network.image_shape
    depth = model.network.depth
    (top, _), (left, _) = padding(height, depth), padding(width, depth)
    kl = model.metrics.get("kl_z_per_latent", [None] * model.network.latents)
    return {
        "imageShape": model.network.image_shape,
        "padding": [padded(height, depth), padded(width, depth), top, left],
        "latents": model.network.latents,
        "classes": model.category_names,
        "kl": kl,
        "framing": _framing(model)._asdict(),
        "networks": networks,
        **_controls(model),
    }


def _framing(model: TrainedModel) -> Framing:
    try:
        return model.framing
    except ValueError:
        return _NO_INK


def _controls(model: TrainedModel) -> dict[str, Any]:
    """Quadratic maps from z to the factors of the style, for classes with training images."""
    controls = model.style_controls
    if controls is None:
        return {"factors": [], "fitted": []}
    values = controls.to_json()
    spread = np.nanmean(controls.highest - controls.lowest, axis=0) / np.sqrt(12)
    factors = [
        {
            "name": name,
            "unit": UNITS[index],
            # The page changes z by the map alone, which is fast.
            "isControlled": name in controls.controlled and bool(controls.map_r2[index] >= MIN_R2),
            "spread": spread[index],
            **{key: [row[index] for row in values[key]] for key in _PER_CLASS},
        }
        for index, name in enumerate(FACTORS)
    ]
    return {"factors": factors, "fitted": controls.fitted_classes.tolist()}


def _networks(model: TrainedModel) -> dict[str, list[Layer]]:
    """Layers of each part of the networks, with batch normalisation folded into the weights."""
    network = model.network
    height, width, channels = network.image_shape
    depth = network.depth
    rows, columns = padded(height, depth), padded(width, depth)
    flat = flatten_dict(model.variables, sep="/")
    variables = {name: np.asarray(value, np.float64) for name, value in flat.items()}

    def layer(operation: str, kernel: str, *, norm: str | None = None, **sizes: Any) -> Layer:
        """Layer of the kernel at this path, followed by the norm at that one, or with a bias."""
        array = variables[f"params/{kernel}/kernel"]
        if norm is None:
            slope = 1.0
            bias = variables.get(f"params/{kernel}/bias", np.zeros(array.shape[-1]))
        else:
            variance = variables[f"batch_stats/{norm}/var"]
            slope = variables[f"params/{norm}/scale"] / np.sqrt(variance + EPSILON)
            bias = variables[f"params/{norm}/bias"] - slope * variables[f"batch_stats/{norm}/mean"]
        taps = 16 if array.ndim == 4 else 1
        inputs, outputs = array.shape[-2:]
        sizes |= {"taps": taps, "inputs": inputs, "outputs": outputs, "relu": norm is not None}
        return {"operation": operation, "kernel": slope * array, "bias": bias, **sizes}

    def trunk(path: str) -> list[Layer]:
        return [
            layer(
                "convolution",
                f"{path}/Trunk_0/Conv_{i}",
                norm=f"{path}/Trunk_0/NormReLU_{i}",
                height=rows >> i + 1,
                width=columns >> i + 1,
            )
            for i in range(depth)
        ]

    def hidden(path: str) -> list[Layer]:
        norm = f"{path}/Trunk_0/NormReLU_{depth}"
        return [layer("dense", f"{path}/Trunk_0/Dense_0", norm=norm)]

    decoder = [
        layer("dense", f"decoder/Dense_{i}", norm=f"decoder/NormReLU_{i}") for i in range(2)
    ] + [
        layer(
            "transposedConvolution",
            f"decoder/ConvTranspose_{i}",
            norm=f"decoder/NormReLU_{i + 2}" if i < depth - 1 else None,
            height=rows >> depth - i,
            width=columns >> depth - i,
        )
        for i in range(depth)
    ]
    decoder[-1]["bias"] = np.broadcast_to(variables["params/decoder/bias"], channels)
    mean = layer("dense", "encoder/mean/Dense_0")
    # Fixed dimensions of z are 0, in the encoder and the decoder.
    free = network.latents - network.fixed_latents
    for array in (mean["kernel"].T, mean["bias"], decoder[0]["kernel"]):
        array[free : network.latents] = 0
    networks = {
        "decoder": decoder,
        "trunk": trunk("encoder"),
        "hidden": hidden("encoder"),
        "mean": [mean],
    }
    if network.conditional:
        head = layer("dense", "classifier/logits/Dense_0")
        networks["classifier"] = [*trunk("classifier"), *hidden("classifier"), head]
    elif model.has_classes:
        networks["logits"] = [layer("dense", "encoder/logits/Dense_0")]
    return networks

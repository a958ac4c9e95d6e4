"""TrainedModel models for others: weights as safetensors, networks as ONNX, and a card that tells all.

``jvae_jax.load`` takes the folder.
"""

# pyright: reportMissingImports=false

import importlib.util
import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax import Array
from safetensors.numpy import save

from jvae_jax.data import DATA_DIR
from jvae_jax.export.model_card import card
from jvae_jax.files import write_json
from jvae_jax.models import layers
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.pretrained import TrainedModel
from jvae_jax.training.run import WEIGHTS

ONNX = ("encoder.onnx", "decoder.onnx")


def can_write_onnx() -> bool:
    """Whether jax2onnx is installed."""
    return importlib.util.find_spec("jax2onnx") is not None


def export(trained: TrainedModel, folder: Path, *, onnx: bool = True) -> list[str]:
    """Writes a trained model into a folder of its own, whole or not at all.

    Args:
        trained: the model.
        folder: doesn't exist yet, or is empty.
        onnx: whether its networks are to be written too, see :func:`write_onnx`.

    Returns:
        The names of the files: config.json, model.safetensors, README.md, evaluation.json if the
        run was evaluated, and with ``onnx`` encoder.onnx and decoder.onnx.

    Raises:
        ValueError: if the folder holds something.
        ModuleNotFoundError: if ``onnx`` is asked for and jax2onnx isn't installed.
        OSError: if it can't be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} holds something already; choose another --output")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        run = trained.run
        is_file = run.config.dataset.endswith(".npz")
        contents = json.loads((run.workdir / "config.json").read_text(encoding="utf-8"))
        origin = contents.get("environment", {})
        # Where things lay on one machine is nobody else's business.
        config = replace(
            run.config,
            workdir=None,
            data_dir=DATA_DIR,
            dataset=Path(run.config.dataset).name if is_file else run.config.dataset,
        )
        write_json(temporary / "config.json", {**contents, "config": asdict(config)})
        if evaluation := run.evaluation():
            write_json(temporary / "evaluation.json", evaluation)
        arrays: Any = flatten_dict(jax.tree.map(np.asarray, trained.variables), sep="/")
        # Their own save_file lets nobody but its owner read it.
        (temporary / WEIGHTS).write_bytes(save(arrays))
        if onnx:
            write_onnx(trained, temporary)
        (temporary / "README.md").write_text(card(run, origin, onnx=onnx), encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return sorted(path.name for path in folder.iterdir())


def write_onnx(trained: TrainedModel, folder: Path) -> None:
    """Writes both networks as ONNX, for batches of any size, in float32.

    encoder.onnx: ``images``, (batch, height, width, channels) in [0, 1], to ``mean`` and
    ``logvar`` of z and, where there are classes, ``probabilities`` of c.
    decoder.onnx: ``z`` and, where there are classes, ``c``, one-hot, to ``images``.

    Raises:
        ModuleNotFoundError: if jax2onnx isn't installed.
    """
    from jax2onnx import to_onnx

    # It warns of shapes of values in between, which ONNX infers.
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    model = trained.model.clone(dtype=None)
    variables = trained.variables
    infer, draw = nn.apply(Autoencoder.infer, model), nn.apply(Autoencoder.decode, model)

    def encoder(images: Array) -> tuple[Array, ...]:
        found = infer(variables, images)
        if found.logits is None:
            return found.mean, found.logvar
        return found.mean, found.logvar, jax.nn.softmax(found.logits)

    def decoder(*latents: Array) -> Array:
        return jax.nn.sigmoid(draw(variables, jnp.concatenate(latents, axis=-1)))

    has_classes = model.classes > 0
    for name, function, inputs, outputs in (
        (
            ONNX[0],
            encoder,
            {"images": model.image_shape},
            ["mean", "logvar", "probabilities"][: 2 + has_classes],
        ),
        (
            ONNX[1],
            decoder,
            {"z": (model.latents,), **({"c": (model.classes,)} if has_classes else {})},
            ["images"],
        ),
    ):
        to_onnx(
            _with_native_layers(function),
            [("batch", *shape) for shape in inputs.values()],
            input_names=list(inputs),
            output_names=outputs,
            return_mode="file",
            output_path=folder / name,
        )


def _with_native_layers(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function with convolutions for what would be matrix products on CPU."""
    native: dict[type, Callable[..., Array]] = {
        layers.Conv: layers.conv_native,
        layers.ConvTranspose: layers.conv_transpose_native,
    }

    def lower(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if type(module) in native:
            return native[type(module)](args[0], module.get_variable("params", "kernel"))
        return call(*args, **kwargs)

    def lowered(*args: Array) -> Any:
        with nn.intercept_methods(lower):
            return function(*args)

    return lowered

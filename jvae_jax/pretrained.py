"""Loading trained models, from the folder of a run or of an exported model."""

from pathlib import Path
from typing import Any

import jax
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError
from safetensors.numpy import load_file

from jvae_jax.trained_model import TrainedModel
from jvae_jax.training.run import WEIGHTS, Run, load_run
from jvae_jax.types import Variables


def load(path: str | Path, *, checkpoint: str = "latest") -> TrainedModel:
    """Loads a trained model.

    Args:
        path: folder of a run, or of a model exported by ``jvae export``.
        checkpoint: checkpoint of a run: "latest", or "best": the lowest negative ELBO.

    Raises:
        FileNotFoundError: if there is no model.
        ValueError: if a file is invalid or has another format.
        CheckpointError: if a run has no checkpoint yet, or none that can be read.
    """
    run = load_run(path)
    if (run.workdir / WEIGHTS).exists():
        return run.make_model(_read_weights(run))
    return run.make_model(run.load_state(checkpoint).average)


def _read_weights(run: Run) -> Variables:
    path = run.workdir / WEIGHTS
    try:
        arrays = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    expected = flatten_dict(run.state_shape().average, sep="/")
    for name in sorted(expected.keys() | arrays.keys()):
        found, required = _describe(arrays.get(name)), _describe(expected.get(name))
        if found != required:
            raise ValueError(f"{path}: {name} is {found}, but config.json requires {required}")
    return jax.tree.map(jax.numpy.asarray, unflatten_dict(arrays, sep="/"))


def _describe(array: Any) -> str:
    return "missing" if array is None else f"{array.dtype} of shape {tuple(array.shape)}"

"""A trained model, from the folder of its run or from one that it was exported into."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError
from safetensors.numpy import load_file

from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.training.run import WEIGHTS, Run, load_run
from jvae_jax.types import Variables


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedModel:
    """A model with what it learned, as :mod:`~jvae_jax.generation.characters` takes them.

    Attributes:
        run: what it was trained as, its configuration and what is kept of its data.
        variables: its parameters and statistics: their moving average.
    """

    run: Run
    variables: Variables

    @property
    def model(self) -> Autoencoder:
        """Its networks."""
        return self.run.model


def load(path: str | Path, *, checkpoint: str = "latest") -> TrainedModel:
    """Opens a trained model.

    Args:
        path: the folder of a run, or one that it was exported into.
        checkpoint: of a run, the latest or the best.

    Raises:
        FileNotFoundError: if there is neither.
        ValueError: if what is there can't be understood.
        CheckpointError: if a run has no checkpoint yet, or none that can be read.
    """
    run = load_run(path)
    if not (run.workdir / WEIGHTS).exists():
        return TrainedModel(run=run, variables=run.load_state(checkpoint).average)
    return TrainedModel(run=run, variables=_read_weights(run))


def _read_weights(run: Run) -> Variables:
    path = run.workdir / WEIGHTS
    try:
        arrays = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    expected = flatten_dict(run.state_shape().average, sep="/")
    for name in sorted(expected.keys() | arrays.keys()):
        there, here = _kind(arrays.get(name)), _kind(expected.get(name))
        if there != here:
            raise ValueError(f"{path}: {name} is {there}, its config.json says {here}")
    return jax.tree.map(jax.numpy.asarray, unflatten_dict(arrays, sep="/"))


def _kind(array: Any) -> str:
    return "missing" if array is None else f"{array.dtype} of shape {tuple(array.shape)}"

"""Loading trained models, from the folder of a run or of an exported model."""

from pathlib import Path

from jvae_jax.trained_model import TrainedModel
from jvae_jax.training.run import load_run


def load(path: str | Path, *, checkpoint: str = "latest") -> TrainedModel:
    """Loads a trained model.

    Args:
        path: folder of a run, or of a model exported by ``jvae export``.
        checkpoint: checkpoint of a run: "latest" or "best" (lowest negative ELBO on the test
            split).

    Raises:
        FileNotFoundError: if there is no model.
        ValueError: if a file is invalid or has another format.
        CheckpointError: if a run has no checkpoint yet, or none that can be read.
    """
    return load_run(path).load_model(checkpoint)

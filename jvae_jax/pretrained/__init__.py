"""Loading trained models: of a run, exported, or packaged, that is, shipped with jvae_jax.

A packaged model is a sub-folder of this one as ``jvae export`` writes it; its name is the folder's.
"""

from pathlib import Path

from jvae_jax.trained_model import TrainedModel
from jvae_jax.training.run import load_run

PACKAGED = Path(__file__).parent
"""Folder of the packaged models."""

NOTES = {
    "kana": "The training images are a stand-in for hiragana73, rendered from fonts in the layout "
    "and class balance of the release, whose images are scans.",
}
"""What their names and configurations don't tell of the packaged models."""


def packaged_models() -> dict[str, Path]:
    """Returns the folders of the packaged models by name, in alphabetical order."""
    return {path.parent.name: path.parent for path in sorted(PACKAGED.glob("*/config.json"))}


def load(path: str | Path, *, checkpoint: str = "latest") -> TrainedModel:
    """Loads a trained model.

    Args:
        path: name of a packaged model, as ``jvae models`` lists them, or folder of a run or of a
            model exported by ``jvae export``. A folder that has the name of a packaged model is
            given as ``./digits`` or as a ``Path``.
        checkpoint: checkpoint of a run: "latest" or "best" (lowest negative ELBO on the test
            split); other models have only one.

    Raises:
        FileNotFoundError: if there is no model.
        ValueError: if a file is invalid or has another format.
        CheckpointError: if a run has no checkpoint yet, or none that can be read.
    """
    packaged = packaged_models()
    try:
        run = load_run(packaged.get(path, path) if isinstance(path, str) else path)
    except FileNotFoundError as error:
        names = ", ".join(packaged) or "none"
        raise FileNotFoundError(f"{error}; packaged models: {names}") from error
    return run.load_model(checkpoint)

"""Packaged models: trained models that are shipped with jvae_jax.

Each is a sub-folder of this one as ``jvae export`` writes it; its name is the folder's. The folder
``eval_classifiers`` holds trained evaluation classifiers.
"""

from pathlib import Path

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

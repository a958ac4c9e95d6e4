"""Class-conditional, disentangled generation of characters: a Joint-VAE with categorical labels.

Reference implementation, in JAX and Flax, of *Learning VAE with Categorical Labels for Generating
Conditional Handwritten Characters* (Goto and Inoue).

- :mod:`jvae_jax.losses`: the objectives as pure functions of any encoder and decoder.
- :func:`fit`, :class:`TrainConfig`, :data:`OBJECTIVES`: training with the paper's networks.
- :func:`load`, :class:`TrainedModel`: sampling, style transfer and evaluation of trained models.
- :mod:`jvae_jax.data`, :mod:`jvae_jax.generation`, :mod:`jvae_jax.evaluation`: the underlying
  functions.
- ``jvae_jax.handwriting``, imported by itself: a hand from pictures, texts and fonts.

Messages are logged to the ``jvae_jax`` logger; by default, only warnings are shown, on stderr.
"""

from importlib.metadata import version

from jvae_jax import data, evaluation, generation, losses, sampling
from jvae_jax.data import Dataset
from jvae_jax.evaluation import evaluate
from jvae_jax.models import Autoencoder, Classifier, Decoder, Encoder
from jvae_jax.objectives import (
    CVAE,
    OBJECTIVES,
    PRESETS,
    VAE,
    AnnealedVAE,
    BetaVAE,
    JointVAE,
    Objective,
    Ours,
)
from jvae_jax.trained_model import TrainedModel
from jvae_jax.training import CheckpointError, DivergedError, Run, TrainConfig, fit, load
from jvae_jax.types import Batch, Keys, LabelInfo, LossTerms, Posterior

__version__ = version("jvae_jax")

__all__ = [
    "CVAE",
    "OBJECTIVES",
    "PRESETS",
    "VAE",
    "AnnealedVAE",
    "Autoencoder",
    "Batch",
    "BetaVAE",
    "CheckpointError",
    "Classifier",
    "Dataset",
    "Decoder",
    "DivergedError",
    "Encoder",
    "JointVAE",
    "Keys",
    "LabelInfo",
    "LossTerms",
    "Objective",
    "Ours",
    "Posterior",
    "Run",
    "TrainConfig",
    "TrainedModel",
    "data",
    "evaluate",
    "evaluation",
    "fit",
    "generation",
    "load",
    "losses",
    "sampling",
]

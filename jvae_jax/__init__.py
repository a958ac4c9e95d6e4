"""Class-conditional, disentangled generation of characters: the Joint-VAE with labels, in JAX.

The losses are pure functions of any encoder and decoder (:mod:`jvae_jax.losses`); everything else
trains, evaluates and draws with the paper's own.
"""

from jvae_jax import cli, data, evaluation, generation, losses, sampling
from jvae_jax.data import Dataset, framing
from jvae_jax.evaluation.metrics import evaluate
from jvae_jax.models.autoencoder import Autoencoder, Classifier, Decoder, Encoder
from jvae_jax.objectives import (
    CVAE,
    OBJECTIVES,
    VAE,
    AnnealedVAE,
    BetaVAE,
    JointVAE,
    Objective,
    Ours,
)
from jvae_jax.pretrained import TrainedModel, load
from jvae_jax.training.checkpoints import CheckpointError
from jvae_jax.training.config import TrainConfig
from jvae_jax.training.loop import DivergedError, fit
from jvae_jax.training.run import Run
from jvae_jax.types import Batch, Keys, LossTerms, Posterior

__all__ = [
    "CVAE",
    "OBJECTIVES",
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
    "LossTerms",
    "Objective",
    "Ours",
    "Posterior",
    "Run",
    "TrainConfig",
    "TrainedModel",
    "cli",
    "data",
    "evaluate",
    "evaluation",
    "fit",
    "framing",
    "generation",
    "load",
    "losses",
    "sampling",
]

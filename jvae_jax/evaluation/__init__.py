"""Metrics of trained models.

- :mod:`~jvae_jax.evaluation.metrics`: reconstruction error, KL divergences, classification accuracy
- :mod:`~jvae_jax.evaluation.likelihood`: -log p(x) by importance sampling
- :mod:`~jvae_jax.evaluation.classifier`: the evaluation classifier
- :mod:`~jvae_jax.evaluation.conditional`: conditional accuracy, Fréchet distance, precision and
  recall, sensitivity to z
- :mod:`~jvae_jax.evaluation.classification_accuracy_score`: accuracy of
  classifiers trained on generated characters
- :mod:`~jvae_jax.evaluation.style_transfer`: accuracy of restyled images, preservation of style
- :mod:`~jvae_jax.evaluation.disentanglement`: linear probe on z, mutual information of c and label
- :mod:`~jvae_jax.evaluation.factors`: disentanglement scores of z and measured factors
- :mod:`~jvae_jax.evaluation.morphology`: slant, thickness and size of characters
- :mod:`~jvae_jax.evaluation.table`: these metrics as text
"""

from jvae_jax.evaluation.classifier import EvalClassifier
from jvae_jax.evaluation.conditional import frechet_distance
from jvae_jax.evaluation.likelihood import negative_log_likelihood
from jvae_jax.evaluation.metrics import evaluate
from jvae_jax.evaluation.table import format_table

__all__ = [
    "EvalClassifier",
    "evaluate",
    "format_table",
    "frechet_distance",
    "negative_log_likelihood",
]

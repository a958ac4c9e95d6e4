"""Metrics of trained models."""

from jvae_jax.evaluation.metrics import evaluate, format_table

__all__ = ["evaluate", "format_table"]

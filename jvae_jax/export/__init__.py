"""Export of trained models: weights as safetensors, networks as ONNX, and a model card.

:func:`export` writes a folder that ``jvae_jax.load`` reads. :func:`export_onnx` writes the networks
alone, and :func:`new_folder` creates a folder atomically.
"""

from jvae_jax.export.folder import export, new_folder
from jvae_jax.export.onnx import can_export_onnx, export_onnx

__all__ = ["can_export_onnx", "export", "export_onnx", "new_folder"]

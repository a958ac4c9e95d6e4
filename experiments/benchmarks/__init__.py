"""Implementations that the benchmark compares: this library, linen's layers, and PyTorch.

An implementation has three tasks: train, sample, evaluate. Its method for a task takes a batch
size, prepares the data, and returns a function that runs the task a given number of times and
blocks until it is done. The modules of the implementations don't import each other's frameworks.
"""

import statistics
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

Task = Callable[[int], None]
"""Runs a task a given number of times and blocks until it is done."""
TRAIN_IMAGES, TEST_IMAGES = 60_000, 2_000
"""Sizes of the splits. The images are noise: their content doesn't affect speed."""
IMPLEMENTATIONS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "jvae_jax": ("with_jax", "JaxImplementation", {"devices": 1}),
    "jvae_jax, data on host": ("with_jax", "JaxImplementation", {"devices": 1, "data_on": "host"}),
    "jvae_jax, 2 devices": ("with_jax", "JaxImplementation", {"devices": 2}),
    "jvae_jax, 4 devices": ("with_jax", "JaxImplementation", {"devices": 4}),
    "linen, jit": ("with_jax", "JaxImplementation", {"linen": True, "loop": False}),
    "linen, loop": ("with_jax", "JaxImplementation", {"linen": True, "devices": 1}),
    "PyTorch": ("with_torch", "TorchImplementation", {}),
    "PyTorch, tuned": ("with_torch", "TorchImplementation", {"tuned": True}),
}
"""Module, class and arguments of each implementation, by name."""


class Implementation(Protocol):
    def facts(self) -> dict[str, str]:
        """Versions and hardware."""
        ...

    def train(self, batch_size: int) -> Task:
        """Training steps on batches of the training images."""
        ...

    def sample(self, batch_size: int) -> Task:
        """Samples ``batch_size`` characters from the prior."""
        ...

    def evaluate(self, batch_size: int) -> Task:
        """Mean terms of the loss over the test images."""
        ...


def noise(examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Random uint8 images and balanced labels."""
    images = np.random.default_rng(0).integers(0, 256, (examples, 32, 32, 1), np.uint8)
    return images, np.arange(examples, dtype=np.int32) % 10


def format_ratio(durations: Sequence[float], base: Sequence[float]) -> str:
    """Median and quartiles of the durations over the base's of the same round."""
    ratios = [duration / other for duration, other in zip(durations, base, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"

"""Who the benchmark compares: the same training in this library, in linen's layers, in PyTorch.

A contestant has three tasks. Each is prepared for a batch size, and is then a function that does it
so many times and waits until it is done. A contestant's module imports nothing of the others.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

Task = Callable[[int], None]
"""Called with how many times."""
TRAIN_IMAGES, TEST_IMAGES = 60_000, 2_000
"""What they show doesn't matter to speed."""
CONTESTANTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "jvae_jax": ("with_jax", "JaxContestant", {"devices": 1}),
    "jvae_jax, 2 devices": ("with_jax", "JaxContestant", {"devices": 2}),
    "jvae_jax, 4 devices": ("with_jax", "JaxContestant", {"devices": 4}),
    "linen, jit": ("with_jax", "JaxContestant", {"linen": True, "loop": False}),
    "linen, loop": ("with_jax", "JaxContestant", {"linen": True, "devices": 1}),
    "PyTorch": ("with_torch", "TorchContestant", {}),
    "PyTorch, tuned": ("with_torch", "TorchContestant", {"tuned": True}),
}
"""The module, the class and its arguments, by name."""


class Contestant(Protocol):
    def facts(self) -> dict[str, str]:
        """Versions and hardware."""
        ...

    def train(self, batch_size: int) -> Task:
        """Steps on batches of the training images."""
        ...

    def sample(self, batch_size: int) -> Task:
        """Draws so many characters from the prior."""
        ...

    def evaluate(self, batch_size: int) -> Task:
        """The mean of the loss's terms over the test images."""
        ...


def noise(examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels."""
    images = np.random.default_rng(0).integers(0, 256, (examples, 32, 32, 1), np.uint8)
    return images, np.arange(examples, dtype=np.int32) % 10

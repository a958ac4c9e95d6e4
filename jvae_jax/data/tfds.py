"""A tensorflow-datasets builder that needs no TensorFlow: images and labels of any source."""

import contextlib
import io
import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tqdm import tqdm

from jvae_jax.data.source import Arrays, Say, Source

_CHUNK = 10_000
_SPLITS = ("train", "test")


class JvaeImages(tfds.core.GeneratorBasedBuilder):
    """What a source's files hold, whether they were found or have to be downloaded."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        *,
        source: Source,
        found: Mapping[str, Path] | None,
        say: Say,
        config: str,
        data_dir: Path,
    ) -> None:
        self._source, self._found, self._say = source, found, say
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

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        if self._found is not None:
            arrays = self._source.read(self._found, self._say)
        else:
            arrays = self._downloaded(dl_manager)
        return {
            split: self._generate_examples(arrays[f"{split}_images"], arrays[f"{split}_labels"])
            for split in _SPLITS
        }

    def _downloaded(self, dl_manager: tfds.download.DownloadManager) -> Arrays:
        if sys.stderr.isatty():
            tfds.enable_progress_bar()
        downloaded: Any = dl_manager.download(dict(self._source.urls))
        tfds.disable_progress_bar()
        paths = {name: Path(path) for name, path in downloaded.items()}
        try:
            return self._source.read(paths, self._say)
        except ValueError:
            # Or the next start would take them again. Notes of theirs lie beside them.
            for path in paths.values():
                for file in path.parent.glob(f"{path.name}*"):
                    file.unlink()
            raise

    def _generate_examples(self, images: np.ndarray, labels: np.ndarray) -> Iterator:
        bar = tqdm(images, desc="writing", unit=" images", disable=None)
        for index, (image, label) in enumerate(zip(bar, labels, strict=True)):
            yield index, {"image": Image.fromarray(image[..., 0]), "label": int(label)}


def prepare(
    source: Source,
    found: Mapping[str, Path] | None,
    *,
    config: str,
    data_dir: Path,
    downloads: Path,
    say: Say,
) -> Arrays:
    """Prepares a source in ``data_dir``, unless that is done, and reads it back.

    Raises:
        ValueError: if a file found isn't the one it should be.
        ConnectionError: if the download fails.
        OSError: if ``data_dir`` can't be written.
    """
    # What it prints is about sizes it doesn't know, and about TensorFlow and OpenCV.
    tfds.disable_progress_bar()
    logging.getLogger("absl").setLevel(logging.ERROR)
    builder: Any = JvaeImages(source=source, found=found, say=say, config=config, data_dir=data_dir)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(download_dir=downloads)
    except Exception as error:
        if found is not None:
            raise
        raise ConnectionError(f"downloading {source.name} failed: {error}") from error
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
    return arrays

"""Datasets, configurations, files and captured log messages shared by tests."""

import gzip
import hashlib
import io
import logging
import os
import tarfile
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jvae_jax.data import Dataset
from jvae_jax.training.config import TrainConfig
from jvae_jax.types import Posterior


def make_dataset(*, train=48, test=20, size=8, channels=1, classes=3, seed=0, name="toy"):
    """A dataset of noisy bars; the position of the bar is the class."""
    rng = np.random.default_rng(seed)

    def split(examples):
        labels = np.arange(examples, dtype=np.int32) % classes
        images = rng.integers(0, 60, (examples, size, size, channels), np.uint8)
        for image, label in zip(images, labels, strict=True):
            row = label * size // classes
            image[row : row + size // classes] += 180
        return images, labels

    (train_images, train_labels), (test_images, test_labels) = split(train), split(test)
    return Dataset(
        name=name,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        class_names=tuple("abcdefgh"[:classes]),
    )


SMALL = TrainConfig(epochs=4, batch_size=8, latents=2, save_every=1)


class TinyAutoencoder(nn.Module):
    """A dense layer each way and batch normalisation, of 2 x 2 pixels: compiled in no time.

    It has the interface of ``Autoencoder``; tests that use it need ``without_jaxtyping``.
    """

    classes: int = 3
    conditional: bool = False
    train: bool = False
    axis_name: str | None = None
    latents = 1
    image_shape = (2, 2, 1)

    def setup(self):
        self.encoder = nn.Dense(2 * self.latents + (0 if self.conditional else self.classes))
        self.decoder = nn.Dense(4)
        self.norm = nn.BatchNorm(
            use_running_average=not self.train, momentum=0.9, axis_name=self.axis_name
        )
        if self.conditional:
            self.classifier = nn.Dense(self.classes)

    def encode(self, images, labels=None):
        inputs = self.norm(images.reshape(len(images), -1))
        if labels is not None:
            inputs = inputs.repeat(len(labels) // len(images), axis=0)
            inputs = jnp.concatenate([inputs, labels], axis=-1)
        mean, logvar, logits = jnp.split(self.encoder(inputs), [1, 2], axis=-1)
        return Posterior(mean, logvar, logits if logits.shape[-1] else None)

    def decode(self, latents):
        return self.decoder(latents).reshape(-1, *self.image_shape)

    def classify(self, images):
        return self.classifier(images.reshape(len(images), -1))

    def infer(self, images):
        if not self.conditional:
            return self.encode(images)
        logits = self.classify(images)
        one_hot = jnp.eye(self.classes)[logits.argmax(axis=-1)]
        return self.encode(images, one_hot)._replace(logits=logits)

    def __call__(self, images):
        posterior = self.infer(images)
        c = [] if posterior.logits is None else [posterior.logits]
        return self.decode(jnp.concatenate([posterior.mean, *c], axis=-1))


def assert_same_result(run, reference):
    """Asserts that two runs ended with the same state and files, bit for bit."""
    jax.tree.map(np.testing.assert_array_equal, run.load_state(), reference.load_state())
    for name in ("metrics.jsonl", "evaluation.json", "samples.png"):
        assert (run.workdir / name).read_bytes() == (reference.workdir / name).read_bytes()


@contextmanager
def log_messages():
    """Collects the messages logged to "jvae_jax", from INFO on, in the list that it yields."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("jvae_jax")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def shared_data(name):
    """Path of a file or folder in JVAE_DATA_DIR; skips the test if there is none."""
    folder = os.environ.get("JVAE_DATA_DIR")
    path = Path(folder, name).absolute() if folder else None
    if path is None or not path.exists():
        pytest.skip(f"JVAE_DATA_DIR isn't set or doesn't contain {name}")
    return path


def encode_image(image, format="png", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def stroke_image(size=(16, 16), ink=0, background=255):
    """A greyscale image of a vertical stroke in the centre."""
    pixels = np.full(size, background, np.uint8)
    pixels[size[0] // 4 : -size[0] // 4, size[1] // 2 - 1 : size[1] // 2 + 2] = ink
    return Image.fromarray(pixels)


def write_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def idx_file(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return gzip.compress(header + array.tobytes(), mtime=0)


def npz_file(array):
    buffer = io.BytesIO()
    np.savez(buffer, array)
    return buffer.getvalue()


def make_release(release, examples=(30, 10)):
    """Synthetic files of a release.

    Returns:
        The release with the checksums of these files, their contents by name, and their arrays.
    """
    rng = np.random.default_rng(0)
    arrays = []
    for count in examples:
        arrays.append(rng.integers(0, 256, (count, 28, 28), np.uint8))
        labels = np.arange(count) % len(release.class_names) + release.first_label
        arrays.append(labels.astype(np.uint8))
    contents = {
        name: (npz_file if name.endswith(".npz") else idx_file)(array)
        for name, array in zip(release.files, arrays, strict=True)
    }
    checksums = {
        name: f"md5 {hashlib.md5(content).hexdigest()}" for name, content in contents.items()
    }
    return replace(release, files=checksums), contents, arrays


def write_files(folder, contents):
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


@contextmanager
def file_size_limit(size):
    """Lets writes beyond a file size in bytes fail, in the middle, as on a full disk."""
    import resource  # not on Windows

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # JAX would leave truncated programs in the compilation cache.
    option = "jax_persistent_cache_min_compile_time_secs"
    min_compile_time = getattr(jax.config, option)
    jax.config.update(option, 1e9)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        jax.config.update(option, min_compile_time)

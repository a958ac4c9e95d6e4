"""The in-memory dataset, validated on construction, and the metadata that identify it."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np

from jvae_jax.data.labels import keep_labels
from jvae_jax.memory import require_memory
from jvae_jax.numerics import default_numerics
from jvae_jax.types import Batch
from jvae_jax.validation import as_class_indices, as_pixels, check_types

_RESIZED_AT_A_TIME = 5000
"""Images that are resized at a time, which bounds the memory that their floats take."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Train and test images with their labels.

    JAX arrays and nested lists are converted to numpy arrays.

    Attributes:
        name: name of the dataset, as passed to :func:`jvae_jax.data.load`.
        train_images, test_images: uint8, (examples, height, width, channels), with bright ink on
            dark background.
        train_labels, test_labels: int32, (examples,); class indices, or -1 for unlabelled examples.
        class_names: class names, in the order of the labels.

    Raises:
        ValueError: if an array has a wrong rank, dtype or length, a label is out of range, or a
            class name is used twice, isn't printable, or contains a comma.
    """

    name: str
    train_images: np.ndarray = field(repr=False)
    train_labels: np.ndarray = field(repr=False)
    test_images: np.ndarray = field(repr=False)
    test_labels: np.ndarray = field(repr=False)
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", check_class_names(self.class_names))
        for split in ("train", "test"):
            images = np.asarray(as_pixels(getattr(self, f"{split}_images"), name=f"{split} images"))
            labels = as_class_indices(
                getattr(self, f"{split}_labels"),
                len(images),
                classes=len(self.class_names),
                unlabelled=True,
                name=f"{split} labels",
            )
            object.__setattr__(self, f"{split}_images", images)
            object.__setattr__(self, f"{split}_labels", np.asarray(labels, np.int32))
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise ValueError(
                f"train images are {self.train_images.shape[1:]}, "
                f"test images {self.test_images.shape[1:]}: their shapes must be equal"
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        _, height, width, channels = self.train_images.shape
        return height, width, channels

    @property
    def test_split(self) -> Batch:
        """The test images and their labels."""
        return Batch(self.test_images, self.test_labels)

    @property
    def all_labelled(self) -> bool:
        """Whether every training and test image has a label."""
        return bool((self.train_labels >= 0).all() and (self.test_labels >= 0).all())

    def with_labels(self, count: int, seed: int) -> "Dataset":
        """Returns a copy with ``count`` training labels, balanced over classes.

        Args:
            count: number of training labels to keep; the rest become -1.
            seed: seed of the selection.

        Raises:
            ValueError: if ``count`` is negative or exceeds the number of training labels.
        """
        return replace(self, train_labels=keep_labels(self.train_labels, count, seed))

    @default_numerics()
    def resized(self, size: int) -> "Dataset":
        """Returns a copy with images of size x size: bilinear, antialiased on downscaling.

        Raises:
            ValueError: if the size isn't an integer above 0, or the machine has less memory than
                is needed: a byte per value of all images, and either another one when they are
                joined, or 4 per value of the images that are resized at a time.
        """
        check_image_size(size)
        if self.image_shape[:2] == (size, size):
            return self
        images = len(self.train_images) + len(self.test_images)
        at_a_time = min(max(len(self.train_images), len(self.test_images)), _RESIZED_AT_A_TIME)
        require_memory(
            (images + max(images, 4 * at_a_time)) * size**2 * self.image_shape[2],
            f"resizing {images:,} images to {size:,} x {size:,} pixels",
        )

        def resize(images: np.ndarray) -> np.ndarray:
            starts = range(_RESIZED_AT_A_TIME, len(images), _RESIZED_AT_A_TIME)
            chunks = np.split(images, starts)
            return np.concatenate([np.asarray(_resize(chunk, size)) for chunk in chunks])

        return replace(
            self,
            train_images=resize(self.train_images),
            test_images=resize(self.test_images),
        )

    def binarized(self) -> "Dataset":
        """Returns a copy with binary images: a pixel is 255 with a probability of its value / 255,
        else 0.

        Every call draws the same images (static binarization), those of numpy's
        ``default_rng(0)``, first of the training images, then of the test images.

        References:
            Salakhutdinov and Murray, *On the Quantitative Analysis of Deep Belief Networks*, 2008.
        """
        rng = np.random.default_rng(0)

        def binarize(images: np.ndarray) -> np.ndarray:
            # An integer below 255 is below the pixel's value with a probability of value / 255.
            ink = rng.integers(255, size=images.shape, dtype=np.uint8) < images
            return ink * np.uint8(255)

        return replace(
            self,
            train_images=binarize(self.train_images),
            test_images=binarize(self.test_images),
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the images, labels and class names, independent of the dataset's location."""
        digest = hashlib.sha256()
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(f"{array.shape}{array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).data)
        digest.update("\0".join(self.class_names).encode())
        return digest.hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """Metadata of a dataset, stored with a run.

    Attributes:
        fingerprint: hash of the dataset's content.
        train_examples, test_examples: number of images.
        image_shape: height, width and channels.
        class_names: class names, in the order of the labels.
        labels_per_class: number of labelled training images of each class; empty if not recorded.

    Raises:
        ValueError: if a value has a wrong type or is out of range.
    """

    fingerprint: str
    train_examples: int
    test_examples: int
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    labels_per_class: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_types(self)
        check_class_names(self.class_names)
        if min(self.image_shape) < 1:
            raise ValueError(f"image_shape must be above 0, got {self.image_shape}")
        if len(self.labels_per_class) not in (0, len(self.class_names)):
            raise ValueError(
                f"labels_per_class must have one entry for each of {len(self.class_names)} "
                f"classes, got {len(self.labels_per_class)}"
            )

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> "DatasetInfo":
        """Computes the metadata of a dataset."""
        labels = dataset.train_labels
        counts = np.bincount(labels[labels >= 0], minlength=len(dataset.class_names))
        return cls(
            fingerprint=dataset.fingerprint,
            train_examples=len(dataset.train_images),
            test_examples=len(dataset.test_images),
            image_shape=dataset.image_shape,
            class_names=dataset.class_names,
            labels_per_class=tuple(counts.tolist()),
        )

    @classmethod
    def from_json(cls, contents: dict[str, Any]) -> "DatasetInfo":
        """Restores the metadata from their JSON form, as ``dataclasses.asdict`` writes it.

        Raises:
            TypeError, ValueError: if a field is missing, unknown or has a wrong type.
        """
        tuple_fields = ("image_shape", "class_names", "labels_per_class")
        tuples = {name: tuple(contents[name]) for name in tuple_fields if name in contents}
        return cls(**{**contents, **tuples})


def check_class_names(names: Iterable[str], source: str = "class_names") -> tuple[str, ...]:
    """Returns class names as a tuple, if they are distinct and can be printed and listed.

    Control characters and terminal escapes aren't printable; ``--labels`` separates names by
    commas, with optional spaces.

    Args:
        names: class names.
        source: where they come from, for the message.

    Raises:
        ValueError: if they aren't.
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise ValueError(f"{source} must be a sequence of names, got {names!r}")
    checked: dict[str, None] = {}  # an ordered set
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"{source} must be text, got {name!r}")
        if not name.isprintable() or "," in name or name.strip() != name or not name:
            raise ValueError(
                f"{source} must be printable, not empty, and without commas and surrounding "
                f"spaces, got {name!r}"
            )
        if name in checked:
            raise ValueError(f"{source} must be unique, got {name!r} twice")
        checked[str(name)] = None
    return tuple(checked)


def check_image_size(size: int) -> None:
    """Raises ValueError unless a height and width, in pixels, is an integer above 0."""
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"image_size must be an integer above 0, got {size!r}")


@partial(jax.jit, static_argnames="size")
def _resize(images: jax.Array, size: int) -> jax.Array:
    shape = (len(images), size, size, images.shape[-1])
    resized = jax.image.resize(images.astype(np.float32), shape, "bilinear")
    return resized.round().astype(np.uint8)

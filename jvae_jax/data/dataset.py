"""A data set in memory, checked when it is made."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property, partial

import jax
import numpy as np

from jvae_jax.data.labels import hide_labels


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Train and test images with their labels.

    Attributes:
        name: what ``load`` knows it by.
        train_images, test_images: uint8, (examples, height, width, channels), ink bright on dark.
        train_labels, test_labels: int32, (examples,); a class index, or -1 for unlabelled.
        class_names: one for each class.

    Raises:
        ValueError: if an array's rank, dtype or length is wrong, or a label is out of range.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        for split in ("train", "test"):
            check_images(getattr(self, f"{split}_images"), f"{split} images")
            check_labels(
                getattr(self, f"{split}_labels"),
                examples=len(getattr(self, f"{split}_images")),
                classes=len(self.class_names),
                what=f"{split} labels",
            )
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise ValueError(
                f"train images are {self.train_images.shape[1:]}, "
                f"test images {self.test_images.shape[1:]}: they must have one shape"
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        _, height, width, channels = self.train_images.shape
        return height, width, channels

    @property
    def all_labelled(self) -> bool:
        """Whether no label, train or test, is -1."""
        return bool((self.train_labels >= 0).all() and (self.test_labels >= 0).all())

    def with_labels(self, count: int, seed: int) -> "Dataset":
        """The same data with so many training labels, as many of each class as may be.

        Raises:
            ValueError: if there are fewer.
        """
        return replace(self, train_labels=hide_labels(self.train_labels, count, seed))

    def resized(self, size: int) -> "Dataset":
        """The same data at size x size: bilinear, and antialiased where it shrinks."""
        if self.image_shape[:2] == (size, size):
            return self

        def resize(images: np.ndarray) -> np.ndarray:
            chunks = np.split(images, range(5000, len(images), 5000))
            return np.concatenate([np.asarray(_resize(chunk, size)) for chunk in chunks])

        return replace(
            self,
            train_images=resize(self.train_images),
            test_images=resize(self.test_images),
        )

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the content: equal for equal data, wherever they came from."""
        digest = hashlib.sha256()
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(f"{array.shape}{array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).data)
        digest.update("\0".join(self.class_names).encode())
        return digest.hexdigest()[:16]


def check_images(images: np.ndarray, what: str = "images") -> None:
    """Raises ValueError unless images are uint8 (examples, height, width, channels)."""
    if images.ndim != 4:
        raise ValueError(
            f"{what} must be (examples, height, width, channels), got shape {images.shape}"
        )
    if images.dtype != np.uint8:
        span = f" in {images.min():g} to {images.max():g}" if images.size else ""
        raise ValueError(f"{what} must be uint8 in 0 to 255, got {images.dtype}{span}")


def check_labels(labels: np.ndarray, *, examples: int, classes: int, what: str = "labels") -> None:
    """Raises ValueError unless each image has a label, from -1 (unlabelled) to classes - 1."""
    if labels.shape != (examples,):
        raise ValueError(f"{what} must be one for each of {examples} images, got {labels.shape}")
    if labels.dtype.kind != "i":
        raise ValueError(f"{what} must be signed integers, got {labels.dtype}")
    outside = labels[(labels < -1) | (labels >= classes)]
    if len(outside):
        raise ValueError(
            f"{what} must be -1 (unlabelled) or 0 to {classes - 1}, got {int(outside[0])}"
        )


@partial(jax.jit, static_argnames="size")
def _resize(images: jax.Array, size: int) -> jax.Array:
    shape = (len(images), size, size, images.shape[-1])
    resized = jax.image.resize(images.astype(np.float32), shape, "bilinear")
    return resized.round().astype(np.uint8)

"""What tells one data set from another."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from jvae_jax.data import Dataset
from jvae_jax.validation import check_types


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What a run keeps of its data set.

    Raises:
        ValueError: if a value is of another type, or can't be.
    """

    fingerprint: str
    train_examples: int
    test_examples: int
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    labels_per_class: tuple[int, ...] = ()
    """How many training images have the label of each class."""

    def __post_init__(self) -> None:
        check_types(self)
        if min(self.image_shape) < 1:
            raise ValueError(f"image_shape must be above 0, got {self.image_shape}")
        if len(self.labels_per_class) not in (0, len(self.class_names)):
            raise ValueError(
                f"labels_per_class must be one for each of {len(self.class_names)} classes, got "
                f"{len(self.labels_per_class)}"
            )

    @classmethod
    def of(cls, dataset: Dataset) -> "DatasetInfo":
        """The facts of a data set."""
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
        """The same facts, as JSON has them.

        Raises:
            KeyError, TypeError, ValueError: if they aren't that.
        """
        lists = ("image_shape", "class_names", "labels_per_class")
        tuples = {name: tuple(contents[name]) for name in lists if name in contents}
        return cls(**{**contents, **tuples})

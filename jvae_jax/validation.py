"""Checks of dataclass fields and arrays."""

import math
from collections.abc import Callable
from types import EllipsisType, UnionType
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def require(config: Any, name: str, condition: Callable[[Any], bool], description: str) -> None:
    """Raises ValueError unless a field is None, or finite and satisfies a condition.

    Floats must do so in float32, in which they are used: 1e-50 is 0 there.

    Args:
        config: dataclass instance.
        name: name of the field.
        condition: predicate of the field's value.
        description: the condition in words, for the message, e.g. "above 0".
    """
    value = getattr(config, name)
    if value is None:
        return
    rounded = _as_float32(value)
    if not (math.isfinite(rounded) and condition(value if isinstance(value, int) else rounded)):
        is_telling = rounded != value and abs(rounded) in (0.0, 1.0, math.inf)
        in_float32 = f", which is {rounded:g} in float32" if is_telling else ""
        raise ValueError(f"{name} must be {description}, got {value}{in_float32}")


def _as_float32(value: int | float) -> float:
    """Rounds to float32 as XLA does: subnormal numbers are 0."""
    try:
        with np.errstate(over="ignore"):
            rounded = float(np.float32(value))
    except OverflowError:  # an int beyond float64
        return math.inf
    return 0.0 if abs(rounded) < np.finfo(np.float32).tiny else rounded


def check_types(config: Any) -> None:
    """Raises ValueError unless each field of a dataclass instance matches its annotation."""
    for name, annotation in get_type_hints(type(config)).items():
        if get_origin(annotation) is ClassVar:
            continue
        value = getattr(config, name)
        if not _matches(value, annotation):
            raise ValueError(f"{name} must be {_in_words(annotation)}, got {value!r}")


def _matches(value: Any, annotation: Any) -> bool:
    if isinstance(annotation, UnionType):
        return any(_matches(value, alternative) for alternative in get_args(annotation))
    if get_origin(annotation) is Literal:
        return value in get_args(annotation)
    if get_origin(annotation) is tuple:
        items = get_args(annotation)
        if isinstance(items[-1], EllipsisType):
            items = items[:1] * len(value) if isinstance(value, tuple) else items
        return (
            isinstance(value, tuple)
            and len(value) == len(items)
            and all(map(_matches, value, items))
        )
    if isinstance(value, bool) or annotation is bool:
        return isinstance(value, bool) and annotation is bool
    return isinstance(value, (int, float) if annotation is float else annotation)


def _in_words(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return f"one of {', '.join(map(str, get_args(annotation)))}"
    name = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return name.replace("NoneType", "None")


def check_equal_shapes(**arrays: Any) -> None:
    """Raises ValueError unless arrays, given by name, have the same shape."""
    shapes = [array.shape for array in arrays.values()]
    if len(set(shapes)) > 1:
        found = " and ".join(map(str, shapes))
        raise ValueError(f"{' and '.join(arrays)} must have one shape, got {found}")


def as_class_indices(
    labels: Any,
    examples: int | None = None,
    *,
    classes: int | None,
    unlabelled: bool = False,
    name: str = "labels",
) -> Any:
    """Returns class indices as an array; a list is converted.

    Args:
        labels: numpy or JAX array, or a list. The values of an array that is traced, under ``jit``,
            or lies on devices of another process aren't checked.
        examples: required length; None accepts any.
        classes: number of classes; None doesn't bound the indices.
        unlabelled: whether -1 is valid too.
        name: name of the argument, for the message.

    Raises:
        ValueError: if they have another shape, aren't integers, or one is out of range.
    """
    if not hasattr(labels, "dtype"):
        labels = _array(labels, name, empty=np.int32)
    if len(labels.shape) != 1 or examples not in (None, len(labels)):
        length = "labels" if examples is None else examples
        raise ValueError(f"{name} must have shape ({length},), got {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{name} must be integers, got {labels.dtype}")
    if isinstance(labels, Tracer) or not getattr(labels, "is_fully_addressable", True):
        return labels
    values = np.asarray(labels)
    highest = np.iinfo(np.int32).max if classes is None else classes - 1
    outside = values[(values < (-1 if unlabelled else 0)) | (values > highest)]
    if len(outside):
        valid = f"{'-1 (unlabelled) or ' if unlabelled else ''}0 to {highest}"
        raise ValueError(f"{name} must be {valid}, got {outside[0]}")
    return labels


def as_pixels(
    images: Any, *, image_shape: tuple[int, ...] | None = None, name: str = "images"
) -> Any:
    """Returns images of a dataset as an array; nested lists of integers are converted.

    Args:
        images: numpy or JAX array, or nested lists, (examples, height, width, channels).
        image_shape: required height, width and channels; None accepts any.
        name: name of the argument, for the message.

    Raises:
        ValueError: if they have another shape, or aren't uint8.
    """
    if not hasattr(images, "dtype"):
        images = _array(images, name, empty=np.uint8)
        if images.dtype.kind in "iu" and images.size and 0 <= images.min() <= images.max() <= 255:
            images = images.astype(np.uint8)
    if len(images.shape) != 4:
        raise ValueError(
            f"{name} must be (examples, height, width, channels), got shape {images.shape}"
        )
    if images.dtype != np.uint8:
        has_range = images.dtype.kind in "biuf" and images.size and not isinstance(images, Tracer)
        span = f" in {images.min():g} to {images.max():g}" if has_range else ""
        raise ValueError(f"{name} must be uint8 in 0 to 255, got {images.dtype}{span}")
    if image_shape is not None and images.shape[1:] != tuple(image_shape):
        raise ValueError(
            f"{name} must have the model's shape {tuple(image_shape)}, got {images.shape[1:]}"
        )
    return images


def as_images(
    images: Any, *, image_shape: tuple[int, ...] | None = None, name: str = "images"
) -> jax.Array:
    """Returns images with values in [0, 1] as an array. The values aren't checked.

    Args:
        images: numpy or JAX array, or nested lists, (examples, height, width, channels).
        image_shape: required height, width and channels; None accepts any.
        name: name of the argument, for the message.

    Raises:
        ValueError: if they have another shape, or aren't floats.
    """
    images = jnp.asarray(images)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"{name} must be floats in [0, 1], got {images.dtype}; divide pixels of 0 to 255 by 255"
        )
    if image_shape is not None and images.shape[1:] != image_shape:
        raise ValueError(
            f"{name} must be (examples, {', '.join(map(str, image_shape))}), got shape "
            f"{images.shape}"
        )
    return images


def _array(values: Any, name: str, *, empty: Any) -> np.ndarray:
    """Converts nested lists; an array without elements gets the dtype ``empty``."""
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{name} must be an array or lists of equal length: {error}") from error
    return array if array.size else array.astype(empty)

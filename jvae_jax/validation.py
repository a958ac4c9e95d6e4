"""Checks of dataclass fields, used by the configurations."""

import math
from collections.abc import Callable
from types import EllipsisType, UnionType
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints


def require(config: Any, name: str, condition: Callable[[Any], bool], description: str) -> None:
    """Raises ValueError unless a field is None, or finite and satisfies a condition.

    Args:
        config: dataclass instance.
        name: name of the field.
        condition: predicate of the field's value.
        description: the condition in words, for the message, e.g. "above 0".
    """
    value = getattr(config, name)
    if value is not None and not (math.isfinite(value) and condition(value)):
        raise ValueError(f"{name} must be {description}, got {value}")


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

"""Fields of a configuration that are command-line flags too."""

import math
from collections.abc import Callable, Iterable
from dataclasses import MISSING, field, fields
from types import EllipsisType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from jvae_jax.objectives import OBJECTIVES


def option(help: str, *, default: Any = MISSING, choices: Iterable[str] | None = None) -> Any:
    """A dataclass field that is a command-line flag too; without default, it must be given."""
    return field(default=default, metadata={"help": help, "choices": choices and tuple(choices)})


HYPERPARAMETERS = (
    "consistency_weight",
    "alpha",
    "beta",
    "gamma",
    "capacity_z",
    "capacity_c",
    "unlabelled_capacity_c",
    "capacity_steps",
    "temperature",
)
"""The fields of ``TrainConfig`` that go into an objective; None: the objective's own value."""


def hyperparameters(objective: str) -> dict[str, Any]:
    """An objective's own hyperparameters with its defaults."""
    defaults = {f.name: f.default for f in fields(OBJECTIVES[objective])}
    return {name: defaults[name] for name in HYPERPARAMETERS if name in defaults}


def hyperparameter(name: str, help: str) -> Any:
    """An option that only some objectives have, with their defaults in its help."""
    having: dict[Any, list[str]] = {}
    for objective in OBJECTIVES:
        for own, default in hyperparameters(objective).items():
            if own == name:
                having.setdefault(default, []).append(objective)
    defaults = ", ".join(f"{value:g} ({', '.join(names)})" for value, names in having.items())
    return option(f"{help}; default: {defaults}", default=None)


def require(config: Any, name: str, holds: Callable[[Any], bool], what: str) -> None:
    """Raises ValueError unless a field is None, or finite and such that something holds."""
    value = getattr(config, name)
    if value is not None and not (math.isfinite(value) and holds(value)):
        raise ValueError(f"{name} must be {what}, got {value}")


def check_types(config: Any) -> None:
    """Raises ValueError unless each field of a dataclass holds what its annotation says."""
    for name, kind in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if not _fits(value, kind):
            known = kind.__name__ if isinstance(kind, type) else str(kind)
            raise ValueError(f"{name} must be {known.replace('NoneType', 'None')}, got {value!r}")


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(kind, UnionType):
        return any(_fits(value, one) for one in get_args(kind))
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        if isinstance(kinds[-1], EllipsisType):
            kinds = kinds[:1] * len(value) if isinstance(value, tuple) else kinds
        return (
            isinstance(value, tuple) and len(value) == len(kinds) and all(map(_fits, value, kinds))
        )
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, (int, float) if kind is float else kind)

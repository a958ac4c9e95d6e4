"""Fields of a configuration that are command-line flags too."""

from collections.abc import Iterable
from dataclasses import MISSING, field, fields
from typing import Any

from jvae_jax.objectives import OBJECTIVES


def option(help: str, *, default: Any = MISSING, choices: Iterable[str] | None = None) -> Any:
    """A dataclass field that is a command-line flag too; without default, it must be given."""
    return field(default=default, metadata={"help": help, "choices": choices and tuple(choices)})


HYPERPARAMETERS = (
    "agreement",
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

"""Tables and figures, from the JSON that is kept."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jvae_jax import plotting
from jvae_jax.files import replacing
from jvae_jax.validation import option
from paper import pictures, tables


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    output: str = option("folder of tables, figures and their JSON", default="results")


def report(config: ReportConfig) -> None:
    """Makes tables and figures of all JSON in the folder."""
    output = Path(config.output)
    for name, write in REPORTS.items():
        path = output / f"{name}.json"
        if path.exists():
            write(output / name, json.loads(path.read_text(encoding="utf-8")))


def _write_grid(path: Path, contents: dict[str, Any]) -> None:
    _save(path, plotting.panels(pictures.unpack(contents["panels"])))


def _write_table1(path: Path, contents: dict[str, Any]) -> None:
    rows = contents["rows"]
    _write(path, tables.table1(rows))
    ours = [row for row in rows if row["objective"] == "ours"]
    if ours:
        longest = max(ours, key=lambda row: (row["epochs"], -row["seed"]))
        counts = np.array(longest["confusion"])
        _save(path.with_name("confusion"), plotting.confusion(counts, longest["class_names"]))


def _write_fixed_dimensions(path: Path, contents: dict[str, Any]) -> None:
    _write(path, tables.fixed_dimensions(contents["rows"]))
    _save(path, pictures.fixed_dimensions(contents["rows"]))


def _write_labels(path: Path, contents: dict[str, Any]) -> None:
    _write(path, tables.labels(contents["rows"]))
    _save(path, pictures.labels(contents["rows"]))


def _write(path: Path, table: str) -> None:
    with replacing(path.with_suffix(".md")) as file:
        file.write(table.encode())


def _save(path: Path, figure: plotting.Figure) -> None:
    # Without the date and the version, so that the same figure is the same file.
    for suffix, without in ((".png", {"Software": None}), (".pdf", {"CreationDate": None})):
        with replacing(path.with_suffix(suffix)) as file:
            figure.savefig(file, format=suffix[1:], metadata=without)


REPORTS: dict[str, Callable[[Path, dict[str, Any]], None]] = {
    "table1": _write_table1,
    "hiragana": lambda path, contents: _write(path, tables.table1(contents["rows"])),
    "figure2": _write_grid,
    "figure3": _write_grid,
    "traversals": _write_grid,
    "reconstructions": _write_grid,
    "fixed-dimensions": _write_fixed_dimensions,
    "choices": lambda path, contents: _write(
        path, tables.settings(contents["rows"], "training images that were held out")
    ),
    "attempts": lambda path, contents: _write(path, tables.settings(contents["rows"])),
    "labels": _write_labels,
    "readings": lambda path, contents: _write(path, tables.readings(contents["rows"])),
}

"""Tables and figures from the JSON files of a study."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jvae_jax import Ours, plotting
from jvae_jax.files import atomic_write
from paper import figures, tables


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Options of every command."""

    output: str = "results"
    """Folder of tables, figures and their JSON files."""


def report(config: ReportConfig) -> None:
    """Writes the tables and figures of all JSON files in ``config.output``."""
    output = Path(config.output)
    for name, write in REPORTS.items():
        path = output / f"{name}.json"
        if path.exists():
            write(output / name, json.loads(path.read_text(encoding="utf-8")))


def _write_grid(path: Path, contents: dict[str, Any]) -> None:
    _save_figure(path, plotting.panel_grid(figures.unpack(contents["panels"])))


def _write_traversals(path: Path, contents: dict[str, Any]) -> None:
    grid = figures.name_by_factor(figures.unpack(contents["panels"]))
    _save_figure(path, plotting.panel_grid(grid))


def _write_table1(path: Path, contents: dict[str, Any]) -> None:
    rows = contents["rows"]
    _save_table(path, tables.table1(rows))
    if any(row["dataset"] == "mnist" for row in rows):
        _save_table(path.with_name("table1-summary"), tables.table1_summary(rows))
    ours = [row for row in rows if row["objective"] == Ours.name]
    if ours:
        longest = max(ours, key=lambda row: (row["epochs"], -row["seed"]))
        counts = np.array(longest["confusion"])
        figure = plotting.confusion_matrix(counts, longest["class_names"])
        _save_figure(path.with_name("confusion"), figure)


def _write_fixed_dimensions(path: Path, contents: dict[str, Any]) -> None:
    _save_table(path, tables.fixed_dimensions(contents["rows"]))
    _save_figure(path, figures.fixed_dimensions(contents["rows"]))


def _write_frontier(path: Path, contents: dict[str, Any]) -> None:
    _save_table(path, tables.frontier(contents["rows"]))
    _save_figure(path, figures.frontier(contents["rows"]))


def _write_disentanglement(path: Path, contents: dict[str, Any]) -> None:
    _save_table(path, tables.disentanglement(contents["rows"]))
    _save_figure(path, figures.disentanglement(contents["rows"]))


def _write_labels(path: Path, contents: dict[str, Any]) -> None:
    _save_table(path, tables.labels(contents["rows"]))
    _save_figure(path, figures.labels(contents["rows"]))


def _save_table(path: Path, table: str) -> None:
    with atomic_write(path.with_suffix(".md")) as file:
        file.write(table.encode())


def _save_figure(path: Path, figure: plotting.Figure) -> None:
    # Without date and version, equal figures give equal files.
    for suffix, metadata in ((".png", {"Software": None}), (".pdf", {"CreationDate": None})):
        with atomic_write(path.with_suffix(suffix)) as file:
            figure.savefig(file, format=suffix[1:], metadata=metadata)


REPORTS: dict[str, Callable[[Path, dict[str, Any]], None]] = {
    "table1": _write_table1,
    "hiragana": lambda path, contents: _save_table(path, tables.table1(contents["rows"])),
    "figure2": _write_grid,
    "figure3": _write_grid,
    "figure3-best-preset": _write_grid,
    "hiragana-settings": lambda path, contents: _save_table(
        path, tables.settings(contents["rows"], metrics=tables.SAMPLE_METRICS)
    ),
    "traversals": _write_traversals,
    "reconstructions": _write_grid,
    "fixed-dimensions": _write_fixed_dimensions,
    "model-selection": lambda path, contents: _save_table(
        path, tables.settings(contents["rows"], "held-out training images")
    ),
    "preset-selection": lambda path, contents: _save_table(
        path, tables.settings(contents["rows"], "held-out training images", tables.SAMPLE_METRICS)
    ),
    "ablations": lambda path, contents: _save_table(path, tables.settings(contents["rows"])),
    "cluster-selection": lambda path, contents: _save_table(
        path,
        tables.settings(contents["rows"], "held-out training images", tables.CLUSTER_METRICS),
    ),
    "clusters": lambda path, contents: _save_table(
        path, tables.settings(contents["rows"], metrics=tables.CLUSTER_METRICS)
    ),
    "frontier": _write_frontier,
    "disentanglement": _write_disentanglement,
    "likelihood": lambda path, contents: _save_table(path, tables.likelihood(contents["rows"])),
    "labels": _write_labels,
    "fine-tuning": lambda path, contents: _save_table(path, tables.fine_tuning(contents["rows"])),
    "batch-size": lambda path, contents: _save_table(path, tables.batch_sizes(contents["rows"])),
    "image-size": lambda path, contents: _save_table(path, tables.image_sizes(contents["rows"])),
    "image-size-selection": lambda path, contents: _save_table(
        path, tables.image_sizes(contents["rows"], "held-out training images")
    ),
    "cas": lambda path, contents: _save_table(path, tables.cas(contents["rows"])),
    "hands": lambda path, contents: _save_table(path, tables.hands(contents["rows"])),
    "photographs": lambda path, contents: _save_table(path, tables.photographs(contents["rows"])),
    "protocol-variants": lambda path, contents: _save_table(
        path, tables.protocol_variants(contents["rows"])
    ),
}

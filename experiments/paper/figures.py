"""Figures of the paper, and their panels as JSON."""

import base64
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jvae_jax import plotting
from jvae_jax.data import Dataset
from jvae_jax.evaluation.classifier import EvalClassifier
from jvae_jax.evaluation.conditional import most_confused
from jvae_jax.evaluation.morphology import Morphology, measure
from jvae_jax.models.inference import to_pixels
from jvae_jax.plotting import Panel
from jvae_jax.training.run import Run
from paper.studies import (
    CAPACITIES,
    FRONTIER,
    LABEL_METHODS,
    SUPERVISED_BASELINE,
    Row,
)
from paper.tables import label_count

Grid = list[list[Panel]]

_FACTOR_UNITS = {
    "slant": "°",
    "thickness": " px",
    "length": " px",
    "width": " px",
    "height": " px",
}
"""Measures that name traversals, in the order of Morphology, and their units."""

TITLES = {
    "vae": "VAE",
    "cvae": "CVAE",
    "beta_vae": "β-VAE",
    "annealed_vae": "annealed β-VAE",
    "joint_vae": "Joint-VAE",
    "ours": "ours",
    "ours --preset=best": "ours, best preset",
    "ours --consistency_weight=100": "ours, consistency weight 100",
    "ours --consistency_weight=100 --elastic_strength=1": "ours, elastic deformations",
    "ours --preset=best --consistency_weight=100 --elastic_strength=1": (
        "ours, best preset, elastic"
    ),
    "ours --preset=best --label_propagation --consistency_weight=100 --elastic_strength=1": (
        "ours, best preset, label propagation"
    ),
    "ours --label_propagation --consistency_weight=100 --elastic_strength=1": (
        "ours, label propagation"
    ),
    "ours --preset=few_labels": "ours, few_labels preset",
    "cvae --alpha=1000": "CVAE, α = 1000",  # noqa: RUF001  # the Greek letter
    SUPERVISED_BASELINE: SUPERVISED_BASELINE,
}
"""Names of objectives and settings in figures."""
_TABLES_ONLY = (
    "ours --preset=few_labels --unsupervised_epochs=0",
    "ours --pseudo_labels_from=few_labels --consistency_weight=100 --elastic_strength=1",
    "cvae --alpha=1000 --marginal_weight=120 --consistency_weight=300 --augmentation_strength=2 "
    "--neighbours=5",
)
"""Methods of the study of labels that are in its tables only, an ablation and those that were
trained with one number of labels: a figure has nine lines at most."""
HIRAGANA_GROUPS = ("いり", "はほま", "ぬめ", "ぱぴぷぺぽ")
"""Similar hiragana, as in the paper's figure 3, and the five of which hiragana73 has few images."""

_SMALLEST_ERROR = 1e-4
"""Error rate that is plotted, logarithmically, if there is none: one of 10,000 images."""
_FRONTIER_METRICS = {
    "mse": "MSE per pixel",
    "conditional_accuracy": "conditional accuracy",
    "frechet_distance": "Fréchet distance",
    "intra_class_frechet_distance": "intra-class Fréchet distance",
    "linear_probe_accuracy": "linear probe on z",
    "style_transfer_accuracy": "style transfer accuracy",
    "recall": "recall",
    "nll": "-log p(x), nats per image",
}
_STYLES = 10
_TRAVERSAL = np.linspace(-2.0, 2.0, 9)
_EXAMPLES_PER_CLASS = 2


def figure2(runs: Sequence[Run]) -> Grid:
    """Samples of each run: rows share c, columns share z."""
    return [[_samples(run, range(run.network.classes)) for run in runs]]


def figure3(runs: Sequence[Run], dataset: Dataset, eval_classifier: EvalClassifier) -> Grid:
    """Samples of similar characters, beside a test image of each.

    Args:
        runs: runs, each with one panel per group of characters.
        dataset: test images and class names.
        eval_classifier: classifier whose most confused classes are the last group.
    """
    names = dataset.class_names
    available = [group for group in HIRAGANA_GROUPS if set(group) <= set(names)]
    groups = [[names.index(name) for name in group] for group in available]
    groups.append(most_confused(eval_classifier, dataset))
    return [
        [_test_images(dataset, group), *(_samples(run, group) for run in runs)] for group in groups
    ]


def traversals(run: Run, row: Row, labels: Sequence[int]) -> Grid:
    """Traversals of each dimension of z from z = 0, in descending order of KL.

    Args:
        run: trained run.
        row: its row. The KL of a dimension, in nats, is the name of its row of images.
        labels: class of each panel.
    """
    kl = np.array(row["kl_z_per_latent"])
    order = np.argsort(-kl)
    model = run.model
    panels = []
    for label in labels:
        images = model.traverse(jnp.zeros(len(kl)), jnp.asarray(_TRAVERSAL), label)
        panels.append(
            Panel(
                images=np.asarray(images)[order],
                title=f"z from {_TRAVERSAL[0]:g} to {_TRAVERSAL[-1]:g}",
                row_names=() if panels else [f"{kl[dimension]:.2f}" for dimension in order],
            )
        )
    return [panels]


def name_by_factor(grid: Grid) -> Grid:
    """Adds to the row names of traversals the factor that varies most, and its range.

    Changes from the first to the last image of a row are averaged over the panels, and compared
    between factors in units of the standard deviation over a panel. Rows without a change of one
    standard deviation keep their names.
    """
    (panels,) = grid
    images = np.stack([to_pixels(panel.images) for panel in panels])
    panel_count, rows, columns, *shape = images.shape
    measures = np.stack(measure(images.reshape(-1, *shape))[: len(_FACTOR_UNITS)], axis=-1)
    # Without ink, which a poor model may decode, there are no measures.
    measures = np.nan_to_num(measures).reshape(panel_count, rows, columns, -1)
    deviations = measures.std(axis=(1, 2)).mean(axis=0).clip(1e-6)
    by_row = measures.mean(axis=0)
    first, last = by_row[:, 0], by_row[:, -1]
    names = []
    for row, name in enumerate(panels[0].row_names):
        changes = np.abs(last[row] - first[row]) / deviations
        factor = int(changes.argmax())
        name = f"{name} nats"
        if changes[factor] >= 1:
            low, high = sorted((first[row, factor], last[row, factor]))
            title, unit = list(_FACTOR_UNITS.items())[factor]
            name = f"{title} {low:.1f} to {high:.1f}{unit}, {name}"
        names.append(name)
    others = [replace(panel, row_names=()) for panel in panels[1:]]
    return [[replace(panels[0], row_names=names), *others]]


def reconstructions(runs: Sequence[Run], dataset: Dataset) -> Grid:
    """The first test images of each class, and their reconstructions by each run."""
    examples = np.concatenate(
        [
            np.flatnonzero(dataset.test_labels == label)[:_EXAMPLES_PER_CLASS]
            for label in range(len(dataset.class_names))
        ]
    )
    originals = dataset.test_images[examples]
    rows = [originals / np.float32(255)]
    rows += [np.asarray(run.model.reconstruct(originals)) for run in runs]
    names = ["original", *(_title(run) for run in runs)]
    return [[Panel(images=np.stack(rows), row_names=names)]]


def pack(grid: Grid) -> list[list[dict[str, Any]]]:
    """Panels as JSON: 8-bit pixels, compressed by zlib and encoded in base 64."""

    def pack_panel(panel: Panel) -> dict[str, Any]:
        pixels = np.rint(np.clip(panel.images, 0, 1) * 255).astype(np.uint8)
        return {
            "title": panel.title,
            "row_names": list(panel.row_names),
            "shape": list(pixels.shape),
            "pixels": base64.b64encode(zlib.compress(pixels.tobytes(), 9)).decode(),
        }

    return [[pack_panel(panel) for panel in row] for row in grid]


def unpack(grid: list[list[dict[str, Any]]]) -> Grid:
    """Panels from the JSON that :func:`pack` returns."""

    def unpack_panel(panel: dict[str, Any]) -> Panel:
        pixels = np.frombuffer(zlib.decompress(base64.b64decode(panel["pixels"])), np.uint8)
        return Panel(
            images=pixels.reshape(panel["shape"]) / np.float32(255),
            title=panel["title"],
            row_names=panel["row_names"],
        )

    return [[unpack_panel(panel) for panel in row] for row in grid]


def fixed_dimensions(rows: Sequence[Row]) -> plotting.Figure:
    """MSE, linear-probe accuracy and conditional accuracy over the free dimensions of z."""
    charts: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for title, name in (
        ("MSE per pixel", "mse"),
        ("linear probe on z", "linear_probe_accuracy"),
        ("conditional accuracy", "conditional_accuracy"),
    ):
        charts[title] = {}
        for series, fixed in (("no fixed dimensions", False), ("others of 10 fixed at 0", True)):
            subset = [row for row in rows if bool(row["fixed_latents"]) == fixed]
            subset.sort(key=lambda row: row["latents"] - row["fixed_latents"])
            charts[title][series] = (
                [float(row["latents"] - row["fixed_latents"]) for row in subset],
                [row[name] for row in subset],
            )
    return plotting.line_charts(charts, "free dimensions of z")


def frontier(rows: Sequence[Row]) -> plotting.Figure:
    """Metrics of each method over KL(z) on the training images, as means over seeds.

    Rows without a capacity, whose KL is near that of others, are left out if there are such.
    """
    rows = [row for row in rows if row["capacity_z"] is not None] or rows
    charts: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for name, title in _FRONTIER_METRICS.items():
        charts[title] = {}
        for method in FRONTIER:
            points: dict[float | None, list[tuple[float, float]]] = {}
            for row in rows:
                if row["objective"] == method:
                    point = row["train_kl_z"], row[name]
                    points.setdefault(row["capacity_z"], []).append(point)
            means = sorted(tuple(np.mean(same, axis=0).tolist()) for same in points.values())
            if means:
                x, y = zip(*means, strict=True)
                charts[title][TITLES[method]] = (list(x), list(y))
    return plotting.line_charts(
        charts,
        "KL(z), nats per image",
        logarithmic_y=("MSE per pixel", "Fréchet distance", "intra-class Fréchet distance"),
        x_ticks=CAPACITIES,
        columns=4,
    )


def disentanglement(rows: Sequence[Row]) -> plotting.Figure:
    """Mutual information of the factors with each dimension of z, and with c, of seed 0.

    Dimensions are in descending order of KL, which is their name.
    """
    maps = {}
    first_seed = [row for row in rows if row["seed"] == 0]
    # Objectives without a capacity come last, as in the table.
    for row in sorted(first_seed, key=lambda row: row["capacity_z"] or np.inf):
        kl = np.array(row["kl_z_per_latent"])
        order = np.argsort(-kl)
        values = np.array([row["factor_information"][of] for of in Morphology._fields])[:, order]
        names = [f"{kl[dimension]:.1f}" for dimension in order]
        if "factor_c_information" in row:
            of_c = [row["factor_c_information"][of] for of in Morphology._fields]
            values, names = np.column_stack([values, of_c]), [*names, "c"]
        title = TITLES[row["objective"]]
        if row["capacity_z"] is not None:
            title += f", {row['capacity_z']:g} nats"
        maps[title] = values, names
    return plotting.heat_maps(
        maps,
        Morphology._fields,
        x_label="KL of each dimension of z, nats, and c",
        label="mutual information, nats",
        columns=3,
    )


def labels(rows: Sequence[Row]) -> plotting.Figure:
    """Errors of q(c|x) and of generated characters over the number of labels.

    Of each method, the runs with the epochs of the most numbers of labels are plotted. Some methods
    are in the tables only.
    """
    charts: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for title, metric in (
        ("1 - accuracy", "accuracy"),
        ("1 - conditional accuracy", "conditional_accuracy"),
    ):
        charts[title] = {}
        methods = [name for name in LABEL_METHODS if name not in _TABLES_ONLY]
        for method in (*methods, SUPERVISED_BASELINE):
            trained = [row for row in rows if row["objective"] == method and metric in row]
            counts: dict[int, set[int | str]] = {}
            for row in trained:
                counts.setdefault(row["epochs"], set()).add(row["num_labels"])
            epochs = max(counts, key=lambda each: (len(counts[each]), each), default=0)
            points = [
                (float(label_count(row["num_labels"])), max(1 - row[metric], _SMALLEST_ERROR))
                for row in trained
                if row["epochs"] == epochs
            ]
            if points:
                x, y = zip(*sorted(points), strict=True)
                charts[title][TITLES[method]] = (list(x), list(y))
    return plotting.line_charts(charts, "labels", logarithmic=True, logarithmic_y=tuple(charts))


def _title(run: Run) -> str:
    name = run.config.objective.name
    return TITLES.get(name, name)


def _samples(run: Run, classes: Sequence[int]) -> Panel:
    """Samples of each class in ten styles.

    The categories of an unsupervised c are matched to classes by ``category_to_class``.
    """
    categories = list(classes)
    if "category_to_class" in run.evaluation():
        category_to_class = run.evaluation()["category_to_class"]
        categories = [category_to_class.index(label) for label in classes]
    images = run.model.sample(labels=jnp.array(categories), columns=_STYLES, key=jax.random.key(0))
    names = [run.model.category_names[category] for category in categories]
    return Panel(
        images=np.asarray(images),
        title=_title(run),
        row_names=names if "".join(names).isascii() else (),
    )


def _test_images(dataset: Dataset, classes: Sequence[int]) -> Panel:
    first = [np.flatnonzero(dataset.test_labels == label)[0] for label in classes]
    return Panel(images=dataset.test_images[first][:, None] / np.float32(255), title="test image")

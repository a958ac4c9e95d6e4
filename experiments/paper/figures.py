"""What the figures show, and how it is kept as JSON."""

import base64
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jvae_jax import plotting
from jvae_jax.data import Dataset
from jvae_jax.evaluation.classifier import EvalClassifier
from jvae_jax.evaluation.conditional import most_confused
from jvae_jax.generation import characters
from jvae_jax.plotting import Panel
from jvae_jax.training.run import Run
from paper.studies import CHOSEN, LABELS_ALONE, Row, with_flags
from paper.tables import label_count

Grid = list[list[Panel]]

TITLES = {
    "vae": "VAE",
    "cvae": "CVAE",
    "beta_vae": "β-VAE",
    "annealed_vae": "annealed β-VAE",
    "joint_vae": "Joint-VAE",
    "ours": "ours",
}
LOOK_ALIKES = ("いり", "はほま", "ぬめ")
"""Of the kind that the paper's figure 3 shows."""

_STYLES = 10
_TRAVERSED = np.linspace(-2.0, 2.0, 9)
_REDRAWN_EACH = 2


def figure2(runs: Sequence[Run]) -> Grid:
    """Rows fix c, columns fix z, for each run."""
    return [[_characters(run, range(run.model.classes)) for run in runs]]


def figure3(runs: Sequence[Run], dataset: Dataset, eval_classifier: EvalClassifier) -> Grid:
    """The same for characters that look alike, each beside a test image of it."""
    names = dataset.class_names
    known = [group for group in LOOK_ALIKES if set(group) <= set(names)]
    groups = [[names.index(name) for name in group] for group in known]
    groups.append(most_confused(eval_classifier, dataset))
    return [
        [_examples(dataset, group), *(_characters(run, group) for run in runs)] for group in groups
    ]


def traversals(run: Run, row: Row, labels: Sequence[int]) -> Grid:
    """Each dimension of z, by falling KL, for a few characters in the style of z = 0.

    A row's name is the dimension's KL, in nats.
    """
    kl = np.array(row["kl_z_per_latent"])
    order = np.argsort(-kl)
    variables = run.load_state().average
    panels = []
    for label in labels:
        images = characters.traverse(
            run.model,
            variables,
            jnp.zeros(run.model.latents),
            jnp.asarray(_TRAVERSED),
            label,
        )
        panels.append(
            Panel(
                images=np.asarray(images)[order],
                title=f"z from {_TRAVERSED[0]:g} to {_TRAVERSED[-1]:g}",
                row_names=() if panels else [f"{kl[dimension]:.2f}" for dimension in order],
            )
        )
    return [panels]


def reconstructions(runs: Sequence[Run], dataset: Dataset) -> Grid:
    """A few test images of each class, and what each run makes of them."""
    chosen = np.concatenate(
        [
            np.flatnonzero(dataset.test_labels == label)[:_REDRAWN_EACH]
            for label in range(len(dataset.class_names))
        ]
    )
    originals = dataset.test_images[chosen]
    rows = [originals / np.float32(255)]
    rows += [
        np.asarray(characters.reconstruct(run.model, run.load_state().average, originals))
        for run in runs
    ]
    names = ["original", *(TITLES[run.config.objective] for run in runs)]
    return [[Panel(images=np.stack(rows), row_names=names)]]


def pack(grid: Grid) -> list[list[dict[str, Any]]]:
    """Panels as JSON: pixels are rounded to bytes, compressed and in base 64."""

    def packed(panel: Panel) -> dict[str, Any]:
        pixels = np.rint(np.clip(panel.images, 0, 1) * 255).astype(np.uint8)
        return {
            "title": panel.title,
            "row_names": list(panel.row_names),
            "shape": list(pixels.shape),
            "pixels": base64.b64encode(zlib.compress(pixels.tobytes(), 9)).decode(),
        }

    return [[packed(panel) for panel in row] for row in grid]


def unpack(grid: list[list[dict[str, Any]]]) -> Grid:
    """The panels that JSON holds."""

    def unpacked(panel: dict[str, Any]) -> Panel:
        pixels = np.frombuffer(zlib.decompress(base64.b64decode(panel["pixels"])), np.uint8)
        return Panel(
            images=pixels.reshape(panel["shape"]) / np.float32(255),
            title=panel["title"],
            row_names=panel["row_names"],
        )

    return [[unpacked(panel) for panel in row] for row in grid]


def fixed_dimensions(rows: Sequence[Row]) -> plotting.Figure:
    """MSE, the probe's accuracy and what is drawn as asked, over free dimensions."""
    charts: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for title, name in (
        ("MSE per pixel", "mse"),
        ("labels read from z", "linear_probe_accuracy"),
        ("drawn as asked", "conditional_accuracy"),
    ):
        charts[title] = {}
        for series, fixed in (("size of z", False), ("of 10, the rest at 0", True)):
            own = [row for row in rows if bool(row["fixed_latents"]) == fixed]
            own.sort(key=lambda row: row["latents"] - row["fixed_latents"])
            charts[title][series] = (
                [float(row["latents"] - row["fixed_latents"]) for row in own],
                [row[name] for row in own],
            )
    return plotting.curves(charts, "free dimensions of z")


def labels(rows: Sequence[Row]) -> plotting.Figure:
    """Labels read and drawn as asked, over the number of labels; means over draws."""
    charts: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    trained = [with_flags(*setting) for setting in CHOSEN]
    for title, name, objectives in (
        ("labels read", "accuracy", [*trained, LABELS_ALONE]),
        ("drawn as asked", "conditional_accuracy", trained),
    ):
        charts[title] = {}
        for objective in objectives:
            of_count: dict[float, list[float]] = {}
            for row in rows:
                if row["objective"] == objective:
                    of_count.setdefault(float(label_count(row["num_labels"])), []).append(row[name])
            x = sorted(of_count)
            charts[title][objective] = (
                x,
                [float(np.mean(of_count[count])) for count in x],
            )
    return plotting.curves(charts, "labels", logarithmic=True)


def _characters(run: Run, classes: Sequence[int]) -> Panel:
    """Rows of characters in ten styles; an unsupervised c is the one that means the class."""
    categories = list(classes)
    if "category_to_class" in run.evaluation():
        category_to_class = run.evaluation()["category_to_class"]
        categories = [category_to_class.index(label) for label in classes]
    images = characters.sample(
        run.model,
        run.load_state().average,
        jax.random.key(0),
        labels=jnp.array(categories),
        columns=_STYLES,
    )
    names = [run.category_names[category] for category in categories]
    return Panel(
        images=np.asarray(images),
        title=TITLES[run.config.objective],
        row_names=names if "".join(names).isascii() else (),
    )


def _examples(dataset: Dataset, classes: Sequence[int]) -> Panel:
    first = [np.flatnonzero(dataset.test_labels == label)[0] for label in classes]
    return Panel(images=dataset.test_images[first][:, None] / np.float32(255), title="asked")

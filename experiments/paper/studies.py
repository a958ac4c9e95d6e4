"""Runs that belong together: trained where they aren't yet, evaluated, and kept as rows of JSON."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jvae_jax import OBJECTIVES, TrainConfig, fit, losses, sampling
from jvae_jax.data import Dataset
from jvae_jax.evaluation.classifier import EvalClassifier
from jvae_jax.evaluation.metrics import over_split
from jvae_jax.files import write_json
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.models.inference import scale
from jvae_jax.sampling import example_keys
from jvae_jax.training.loop import evaluate_run
from jvae_jax.training.provenance import environment
from jvae_jax.training.run import Run
from jvae_jax.types import Batch, Variables
from paper import baseline

Row = dict[str, Any]

READINGS: dict[str, dict[str, Any]] = {
    "as here": {},
    "squared error": {"reconstruction_loss": "squared_error"},
    "images of 24 x 24": {"image_size": 24},
}
"""What the paper may have done otherwise, in training."""
BALANCED = "ours --balance_classes"
"""What ours is called among objectives where rare classes were drawn as often as others."""
_FEW: dict[str, float] = {"num_labels": 100}
CHOICES: tuple[tuple[str, dict[str, float]], ...] = (
    ("ours", _FEW),
    ("ours", {**_FEW, "gamma": 100.0}),
    ("ours", {**_FEW, "unlabelled_capacity_c": 1.5}),
    ("ours", {**_FEW, "labelled_batch_fraction": 0.5}),
    ("ours", {**_FEW, "consistency_weight": 3.0}),
    ("ours", {**_FEW, "consistency_weight": 10.0}),
    ("ours", {**_FEW, "consistency_weight": 30.0}),
    ("ours", {**_FEW, "consistency_weight": 100.0}),
    ("ours", {**_FEW, "consistency_weight": 30.0, "labelled_batch_fraction": 0.5}),
    ("ours", {**_FEW, "consistency_weight": 30.0, "ema_decay": 0.0}),
    ("cvae", _FEW),
    ("cvae", {**_FEW, "alpha": 10.0}),
    ("cvae", {**_FEW, "alpha": 100.0}),
    ("cvae", {**_FEW, "alpha": 1000.0}),
    ("cvae", {**_FEW, "alpha": 10000.0}),
)
"""What might help where few images have a label."""
CHOSEN: tuple[tuple[str, dict[str, float]], ...] = (
    ("ours", {}),
    ("ours", {"consistency_weight": 100.0}),
    ("cvae", {"alpha": 1000.0}),
)
"""What few labels are measured with: the paper's form, and the best of the choices."""
ATTEMPTS: tuple[tuple[str, dict[str, float]], ...] = (
    ("joint_vae", {}),
    ("joint_vae", {"temperature": 0.33}),
    ("joint_vae", {"gamma": 100.0}),
    ("ours", {"num_labels": 0, "consistency_weight": 30.0}),
    ("ours", {}),
    ("ours", {"consistency_weight": 3.0}),
    ("ours", {"consistency_weight": 30.0}),
)
"""What might have c agree more with labels, where none has one or all have."""
LABELS_ALONE = "labels alone"
"""What a classifier that sees nothing but the labelled images is called among objectives."""


def has_capacities(objective: str) -> bool:
    """Whether an objective raises capacities."""
    return "capacity_steps" in OBJECTIVES[objective].__dataclass_fields__


def trained(
    config: TrainConfig, dataset: Dataset, eval_classifier: EvalClassifier | None, **about: Any
) -> tuple[Run, Row]:
    """A run, trained and evaluated unless it is already, and what is kept of it."""
    # What runs compiled is mapped into memory, and Linux gives a process only 65,530 mappings.
    jax.clear_caches()
    run = fit(config, dataset)
    found = run.evaluation()
    if eval_classifier is not None and "eval_classifier_accuracy" not in found:
        found = evaluate_run(run, dataset, run.load_state(), eval_classifier=eval_classifier)
    started = json.loads((run.workdir / "config.json").read_text(encoding="utf-8"))
    common = {
        "objective": config.objective,
        "seed": config.seed,
        "epochs": config.epochs,
        "dataset": dataset.name,
    }
    origin = {"command": command(), "trained_with": started["environment"]["commit"]}
    return run, {**common, **about, **origin, **found}


def validation(dataset: Dataset) -> Dataset:
    """The training images alone: a sixth of them, drawn at random, in the place of the test's."""
    order = np.random.default_rng(0).permutation(len(dataset.train_labels))
    held_out, kept = np.split(order, [len(order) // 6])
    return replace(
        dataset,
        train_images=dataset.train_images[kept],
        train_labels=dataset.train_labels[kept],
        test_images=dataset.train_images[held_out],
        test_labels=dataset.train_labels[held_out],
    )


def labels_alone(dataset: Dataset, num_labels: int | str, seed: int, epochs: int) -> Row:
    """The same of a classifier that sees the labelled images alone, of which it sees the rest."""
    if isinstance(num_labels, int):
        dataset = dataset.with_labels(num_labels, seed)
    facts = environment()
    return {
        "objective": LABELS_ALONE,
        "seed": seed,
        "epochs": epochs,
        "dataset": dataset.name,
        "num_labels": num_labels,
        "command": command(),
        "trained_with": facts["commit"],
        "accuracy": baseline.labels_alone(dataset, seed),
        "examples": len(dataset.test_labels),
        "environment": facts,
    }


def with_flags(objective: str, values: Mapping[str, Any]) -> str:
    """What an objective with other settings is called among objectives."""
    return " ".join([objective, *(f"--{name}={value:g}" for name, value in values.items())])


def command() -> str:
    """The command that is running."""
    return shlex.join(["python", *sys.argv])


def keep(path: Path, row: Row, identity: Sequence[str]) -> None:
    """Puts a row into a file of rows, in the place of the one that agrees on ``identity``."""
    rows = kept_rows(path)
    same = [all(other[name] == row[name] for name in identity) for other in rows]
    if any(same):
        rows[same.index(True)] = row
    else:
        rows.append(row)
    write_json(path, {"rows": rows})


def kept_rows(path: Path) -> list[Row]:
    """The rows that a file holds, if there is one."""
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []


def mse_by_protocol(run: Run, variables: Variables, dataset: Dataset) -> dict[str, float]:
    """The test MSE per pixel with z the mean or one draw, and c one-hot, soft or relaxed."""
    split = Batch(dataset.test_images, dataset.test_labels)
    temperature = run.config.make_objective().temperature  # type: ignore[attr-defined]
    errors = over_split(_errors, (run.model, temperature), (variables, run.key("test")), split)
    pixels = np.prod(split.images.shape[1:])
    return {
        name: float(np.mean(error, dtype=np.float64) / pixels) for name, error in errors.items()
    }


def _errors(
    model: Autoencoder,
    temperature: float,
    variables: Variables,
    key: Array,
    batch: Batch,
    examples: Array,
) -> dict[str, Array]:
    keys = example_keys(key, 0, examples)
    images = scale(batch.images)

    def errors(model: Autoencoder) -> dict[str, Array]:
        posterior = model.infer(images)
        logits = posterior.logits
        assert logits is not None
        styles = {
            "mean z": posterior.mean,
            "drawn z": sampling.gaussian(keys.gaussian, posterior.mean, posterior.logvar),
        }
        characters = {
            "likeliest c": sampling.one_hot_argmax(logits),
            "soft c": jax.nn.softmax(logits),
            "relaxed draw of c": sampling.gumbel_softmax(keys.gumbel, logits, temperature),
        }
        return {
            f"{style}, {character}": losses.squared_error(
                model.decode(jnp.concatenate([z, c], axis=-1)), images
            )
            for style, z in styles.items()
            for character, c in characters.items()
        }

    return nn.apply(errors, model)(variables)

"""Training and evaluation of the runs of a study; their results as rows of JSON."""

import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
import scipy.stats
from jax import Array

from jvae_jax import CVAE, PRESETS, Objective, TrainConfig, evaluate, fit, losses, sampling
from jvae_jax.data import Dataset
from jvae_jax.evaluation.classifier import EvalClassifier
from jvae_jax.evaluation.factors import unsupervised_disentanglement_ranking
from jvae_jax.evaluation.metrics import over_split
from jvae_jax.files import write_json
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.models.inference import EVAL_BATCH_SIZE, scale_pixels
from jvae_jax.sampling import example_keys
from jvae_jax.training.loop import evaluate_run
from jvae_jax.training.provenance import environment
from jvae_jax.training.run import Run
from jvae_jax.training.step import train_step
from jvae_jax.types import Batch, Images, Variables
from paper import supervised_baseline

Row = dict[str, Any]

PROTOCOL_VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "squared error": {"reconstruction_loss": "squared_error"},
    "24 x 24 images": {"image_size": 24},
}
"""Variants of the training protocol that the paper leaves open, by name."""
BALANCED = "ours --balance_classes"
"""Row name of ``ours`` trained with class-balanced batches."""
Setting = tuple[str, dict[str, Any]]
"""An objective and its settings that differ from the defaults."""
_CLUSTERS: dict[str, Any] = {
    "conditional_encoder": True,
    "marginal_weight": 120.0,
    "consistency_weight": 300.0,
    "augmentation_strength": 2.0,
    "neighbours": 5,
}


def _without(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {other: value for other, value in settings.items() if other != name}


_FEW: dict[str, Any] = {"num_labels": 100}
_CONSISTENCY_ELASTIC: dict[str, Any] = {"consistency_weight": 100.0, "elastic_strength": 1.0}
_LOWER_WEIGHTS: dict[str, Any] = {"marginal_weight": 40.0, "consistency_weight": 100.0}
MODEL_SELECTION: tuple[Setting, ...] = (
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
    ("ours", {"num_labels": 20, **_CLUSTERS}),
    ("ours", {"num_labels": 20, **_CLUSTERS, "capacity_steps": 0}),
    ("ours", {"num_labels": 20, **_CLUSTERS, **_LOWER_WEIGHTS, "capacity_steps": 0}),
    ("ours", {**_FEW, **_without("neighbours", _CLUSTERS), **_LOWER_WEIGHTS, "capacity_steps": 0}),
    ("ours", {**_FEW, **_LOWER_WEIGHTS, "augmentation_strength": 2.0}),
    ("ours", {**_FEW, **_CONSISTENCY_ELASTIC}),
)
"""Candidate settings for few labels, compared on a validation split."""
ABLATIONS: tuple[Setting, ...] = (
    ("joint_vae", {}),
    ("joint_vae", {"temperature": 0.33}),
    ("joint_vae", {"gamma": 100.0}),
    ("ours", {"num_labels": 0, "consistency_weight": 30.0}),
    ("ours", {}),
    ("ours", {"consistency_weight": 3.0}),
    ("ours", {"consistency_weight": 30.0}),
)
"""Settings that may raise the accuracy of q(c|x) without labels or with all of them."""
CLUSTER_SELECTION: tuple[Setting, ...] = (
    ("joint_vae", {}),
    ("joint_vae", {"conditional_encoder": True, "marginal_weight": 120.0}),
    ("joint_vae", _without("neighbours", _CLUSTERS)),
    ("joint_vae", _CLUSTERS),
    ("joint_vae", _without("marginal_weight", _CLUSTERS)),
    ("joint_vae", _without("conditional_encoder", _CLUSTERS)),
    ("joint_vae", {**_CLUSTERS, "consistency_weight": 100.0, "marginal_weight": 40.0}),
    ("joint_vae", {**_CLUSTERS, "augmentation_strength": 1.0}),
    ("joint_vae", {**_CLUSTERS, "augmentation_strength": 3.0}),
    ("joint_vae", {**_CLUSTERS, "neighbours": 2}),
    ("joint_vae", {**_CLUSTERS, "neighbours": 10}),
)
"""Settings that may make Joint-VAE's c the class, compared on a validation split."""
CLUSTERS: tuple[Setting, ...] = (("joint_vae", _CLUSTERS),)
"""Settings of the study without labels, of ``CLUSTER_SELECTION``."""
PSEUDO_LABELLING = "ours --preset=few_labels"
"""Method of the few-label study whose run gives pseudo-labels to another one."""
LABEL_METHODS: dict[str, Setting] = {
    "ours": ("ours", {}),
    "ours --consistency_weight=100": ("ours", {"consistency_weight": 100.0}),
    "ours --consistency_weight=100 --elastic_strength=1": ("ours", _CONSISTENCY_ELASTIC),
    "ours --preset=best --consistency_weight=100 --elastic_strength=1": (
        "ours",
        {**PRESETS["best"].changes(), **_CONSISTENCY_ELASTIC},
    ),
    "ours --preset=best --label_propagation --consistency_weight=100 --elastic_strength=1": (
        "ours",
        {**PRESETS["best"].changes(), "label_propagation": True, **_CONSISTENCY_ELASTIC},
    ),
    "ours --label_propagation --consistency_weight=100 --elastic_strength=1": (
        "ours",
        {"label_propagation": True, **_CONSISTENCY_ELASTIC},
    ),
    PSEUDO_LABELLING: ("ours", {**_CLUSTERS, "unsupervised_epochs": -1}),
    "ours --preset=few_labels --unsupervised_epochs=0": ("ours", _CLUSTERS),
    "ours --pseudo_labels_from=few_labels --consistency_weight=100 --elastic_strength=1": (
        "ours",
        {"pseudo_labels_from": "few_labels", **_CONSISTENCY_ELASTIC},
    ),
    "cvae --alpha=1000": ("cvae", {"alpha": 1000.0}),
    "cvae --alpha=1000 --marginal_weight=120 --consistency_weight=300 --augmentation_strength=2 "
    "--neighbours=5": ("cvae", {"alpha": 1000.0, **_without("conditional_encoder", _CLUSTERS)}),
}
"""Methods of the few-label study: the paper's, the best of ``MODEL_SELECTION`` for 100 labels, that
with elastic deformations, with these and the preset ``best``, both with label propagation, the
preset ``few_labels``, the latter with labels from the first epoch, and elastic deformations with
pseudo-labels by a run of it of as many epochs, for which ``few_labels`` stands. The CVAE has the
options of ``few_labels`` but for ``conditional_encoder``, as it always is, and
``unsupervised_epochs``, which didn't help it."""
_HELD: dict[str, Any] = {"capacity_z": 16.0, "penalty": "multiplier"}
PRESET_SELECTION: tuple[Setting, ...] = (
    ("cvae", {"beta": 30.0, **_HELD}),
    ("ours", {"capacity_z": 16.0}),
    ("ours", _HELD),
    ("ours", {**_HELD, "conditional_encoder": True}),
    ("ours", {**_HELD, "gamma": 1.0}),
    ("ours", {**_HELD, "ema_decay": 0.0}),
    ("ours", {**_HELD, "ema_decay": 0.9995}),
    ("ours", {**_HELD, "information_weight": 3.0}),
    ("ours", {**_HELD, "conditional_encoder": True, "information_weight": 1.0}),
    ("ours", {**_HELD, "conditional_encoder": True, "information_weight": 3.0}),
    ("ours", {**_HELD, "conditional_encoder": True, "information_weight": 10.0}),
)
"""Candidate settings for good samples at 16 nats, compared on a validation split."""
HIRAGANA_SETTINGS: tuple[Setting, ...] = (
    ("ours", {**PRESETS["best"].changes(), "consistency_weight": 100.0}),
    (
        "ours",
        {
            "num_labels": 730,
            "conditional_encoder": True,
            "consistency_weight": 100.0,
            "augmentation_strength": 2.0,
            "capacity_steps": 0,
        },
    ),
)
"""Settings for hiragana: those of the packaged kana with the consistency loss of
``MODEL_SELECTION``, and that loss with ten labels of each class, under a stronger augmentation and
with capacities at their final values from the first step."""
CAPACITIES = (2.0, 5.0, 10.0, 16.0, 25.0)
"""Capacities C_z of the frontier, in nats."""
FRONTIER = ("ours", "ours --preset=best", "cvae")
"""Methods that are compared at each capacity."""
FRONTIER_NLL_IMAGES, FRONTIER_NLL_SAMPLES = 1000, 200
"""Test images and samples for each of them in the frontier's -log p(x)."""
DISENTANGLEMENT_CAPACITIES = (5.0, 10.0, 16.0)
"""Capacities C_z in the study of disentanglement, in nats."""
LIKELIHOOD_LATENTS = (10, 50)
"""Dimensions of z in the study of the likelihood."""
FINE_TUNING_EPOCHS = (25, 100, 400)
"""Epochs on the new classes in the study of fine-tuning."""
BATCH_SIZES = (64, 256, 1024, 4096)
"""Batch sizes in the study of learning rates."""
LEARNING_RATE_RULES = {"constant": 0.0, "square root": 0.5, "linear": 1.0}
"""Exponents of the batch size, relative to the default one, in the learning rate."""
EVAL_CLASSIFIER_IMAGE_SIZE = 32
"""Height and width of the evaluation classifier's images in the study of larger ones, in pixels."""
IMAGE_SIZE_SELECTION = ((64, 1.0, 3), (64, 4.0, 3), (64, 4.0, 4))
"""Heights and widths in pixels, factors of gamma and the information weight, and depths of the
networks, compared on a validation split. The likelihood grows with the pixels, by four here."""
IMAGE_SIZES = ((32, 1.0, 3), (64, 4.0, 4))
"""The same on test images; multiples of the size of the evaluation classifier's images."""
SUPERVISED_BASELINE = "supervised baseline"
"""Row name of the classifier that is trained on the labelled images only."""

_Z_ESTIMATES = ("sampled z", "mean z")
_C_ESTIMATES = ("most probable c", "relaxed c", "softmax c")


def train_and_evaluate(
    config: TrainConfig, dataset: Dataset, eval_classifier: EvalClassifier | None, **extra: Any
) -> tuple[Run, Row]:
    """Trains and evaluates a run, unless its folder holds the finished run.

    Args:
        config: configuration of the run.
        dataset: training and test images.
        eval_classifier: adds the metrics of generated characters.
        extra: further entries of the row.

    Returns:
        The run and its row: configuration, ``extra``, provenance and metrics.
    """
    # Compiled functions are mapped into memory; Linux allows a process 65,530 mappings.
    jax.clear_caches()
    run = fit(config, dataset)
    metrics = run.evaluation()
    if eval_classifier is not None and "eval_classifier_accuracy" not in metrics:
        metrics = evaluate_run(
            run,
            dataset,
            run.model.variables,
            step=run.total_steps,
            eval_classifier=eval_classifier,
        )
    started = json.loads((run.workdir / "config.json").read_text(encoding="utf-8"))
    settings = {
        "objective": config.objective.name,
        "seed": config.seed,
        "epochs": config.epochs,
        "dataset": dataset.name,
    }
    provenance = {"command": command(), "trained_with": started["environment"]["commit"]}
    return run, {**settings, **extra, **provenance, **metrics}


def validation_split(dataset: Dataset) -> Dataset:
    """Splits the training images: a random sixth replaces the test images."""
    order = np.random.default_rng(0).permutation(len(dataset.train_labels))
    validation, training = np.split(order, [len(order) // 6])
    return replace(
        dataset,
        train_images=dataset.train_images[training],
        train_labels=dataset.train_labels[training],
        test_images=dataset.train_images[validation],
        test_labels=dataset.train_labels[validation],
    )


def divide_classes(dataset: Dataset, count: int, seed: int) -> tuple[Dataset, Dataset]:
    """Divides the classes of a dataset at random.

    Args:
        dataset: training and test images with labels.
        count: number of classes of the second part.
        seed: seed of the classes drawn.

    Returns:
        The dataset's two parts, each with the names of its own classes.

    Raises:
        ValueError: if no class is left for the first part.
    """
    order = np.random.default_rng(seed).permutation(len(dataset.class_names))
    if count >= len(order):
        raise ValueError(f"new_classes must be below {len(order)}, got {count}")
    others, new = (_keep_classes(dataset, np.sort(each)) for each in np.split(order, [-count]))
    return others, new


def _keep_classes(dataset: Dataset, classes: np.ndarray) -> Dataset:
    train, test = (np.isin(each, classes) for each in (dataset.train_labels, dataset.test_labels))
    return replace(
        dataset,
        train_images=dataset.train_images[train],
        train_labels=np.searchsorted(classes, dataset.train_labels[train]).astype(np.int32),
        test_images=dataset.test_images[test],
        test_labels=np.searchsorted(classes, dataset.test_labels[test]).astype(np.int32),
        class_names=tuple(dataset.class_names[index] for index in classes),
    )


def keep_images(dataset: Dataset, count: int, seed: int) -> Dataset:
    """Keeps ``count`` training images of each class, drawn at random."""
    rng = np.random.default_rng(seed)
    labels = dataset.train_labels
    kept = np.concatenate(
        [
            rng.permutation(np.flatnonzero(labels == label))[:count]
            for label in range(len(dataset.class_names))
        ]
    )
    return replace(dataset, train_images=dataset.train_images[kept], train_labels=labels[kept])


def supervised_baseline_row(dataset: Dataset, num_labels: int | str, seed: int, epochs: int) -> Row:
    """Trains the supervised baseline on ``num_labels`` labelled images and returns its row.

    Args:
        dataset: training and test images.
        num_labels: number of labels, or ``"all"``.
        seed: seed of the label subset and of training.
        epochs: epochs of the generative models in the same table. The baseline's number of steps
            is fixed.
    """
    if isinstance(num_labels, int):
        dataset = dataset.with_labels(num_labels, seed)
    current = environment()
    return {
        "objective": SUPERVISED_BASELINE,
        "seed": seed,
        "epochs": epochs,
        "dataset": dataset.name,
        "num_labels": num_labels,
        "command": command(),
        "trained_with": current["commit"],
        "accuracy": supervised_baseline.test_accuracy(dataset, seed),
        "examples": len(dataset.test_labels),
        "environment": current,
    }


def setting_name(objective: str, values: Mapping[str, Any]) -> str:
    """Formats an objective and its non-default settings as command-line flags."""
    return " ".join([objective, *(_flag(name, value) for name, value in values.items())])


def _flag(name: str, value: bool | float | str) -> str:
    if value is True:
        return f"--{name}"
    return f"--{name}={value}" if isinstance(value, str) else f"--{name}={value:g}"


def frontier_objective(method: str, capacity_z: float | None) -> Objective:
    """Objective of a method in ``FRONTIER``.

    Args:
        method: one of ``FRONTIER``.
        capacity_z: capacity C_z, in nats; None for none and a weight of KL(z) of 1.
    """
    held: dict[str, Any] = {"capacity_z": capacity_z}
    if method == "cvae":
        return CVAE() if capacity_z is None else CVAE(beta=30.0, penalty="multiplier", **held)
    if capacity_z is None:  # 1 |KL(z) - 0| is KL(z)
        held = {"beta": 1.0, "capacity_z": 0.0, "penalty": "absolute"}
    return replace(PRESETS["paper" if method == "ours" else "best"], **held)


def train_kl_z(run: Run, dataset: Dataset) -> float:
    """Mean of KL(q(z|x) || p(z)) over the training images, in nats per image."""
    split = Batch(dataset.train_images, dataset.train_labels)
    return evaluate(run.network, run.model.variables, split, run.key("test"))["kl_z"]


def category_usage(run: Run, dataset: Dataset) -> Row:
    """The two parts of the mean of KL(q(c|x) || p(c)) over the test images, in nats.

    Returns:
        ``mutual_information_c``, I(x; c), and ``marginal_kl_c``, KL(q(c) || p(c)).
    """
    logits = np.asarray(run.model.encode(dataset.test_images).logits, np.float64)
    posterior = scipy.special.softmax(logits, axis=-1)
    marginal = posterior.mean(axis=0)
    return {
        "mutual_information_c": float(scipy.stats.entropy(posterior, marginal, axis=-1).mean()),
        "marginal_kl_c": float(np.log(len(marginal)) - scipy.stats.entropy(marginal)),
    }


def disentanglement_ranking(pairs: Sequence[tuple[Run, Row]], dataset: Dataset) -> list[float]:
    """Unsupervised disentanglement ranking (UDR) of runs that differ in their seeds.

    Args:
        pairs: runs, at least two, and their rows.
        dataset: its test images are encoded; z is the mean of q(z|x).

    Returns:
        The score of each run.
    """
    latents = [np.asarray(run.model.encode(dataset.test_images).mean) for run, _ in pairs]
    kls = [np.array(row["kl_z_per_latent"]) for _, row in pairs]
    return unsupervised_disentanglement_ranking(latents, kls).tolist()


class AveragingClassifier(EvalClassifier):
    """The evaluation classifier of smaller images, which averages the pixels of larger ones.

    Models of several image sizes have the same one, so their metrics can be compared.
    """

    @classmethod
    def of(cls, classifier: EvalClassifier, dataset: Dataset) -> "AveragingClassifier":
        """The classifier with its accuracy on the averaged test images of a dataset."""
        values = {each.name: getattr(classifier, each.name) for each in fields(classifier)}
        averaging = cls(**values)
        predicted, _ = averaging(scale_pixels(dataset.test_images))
        return replace(averaging, accuracy=float(np.mean(predicted == dataset.test_labels)))

    def _logits_and_features(self, images: Images) -> tuple[Array, Array]:
        rows, columns, channels = cast(tuple[int, int, int], self.image_shape)
        blocks = images.reshape(
            len(images),
            rows,
            images.shape[1] // rows,
            columns,
            images.shape[2] // columns,
            channels,
        )
        return super()._logits_and_features(blocks.mean(axis=(2, 4)))


def processor_time(run: Run, dataset: Dataset) -> Row:
    """Processor time to draw an image and to train on one, in milliseconds.

    Processor time is that of all cores together; it depends less on what else runs than the time
    that passes. Medians of 20 repetitions.
    """
    state = run.load_state()
    z, labels = np.zeros((EVAL_BATCH_SIZE, run.network.latents), np.float32), 0
    size = run.config.batch_size
    batch = Batch(dataset.train_images[:size], dataset.train_labels[:size])
    keys = example_keys(run.key("test"), 0, jnp.arange(size))
    step = jax.jit(train_step, static_argnums=(0, 1, 2))
    arguments = run.config.objective, run.network, run.optimizer, state, batch, keys
    return {
        "drawing_ms": _processor_ms(lambda: run.model.decode(z, labels)) / len(z),
        "training_ms": _processor_ms(lambda: step(*arguments)) / size,
    }


def _processor_ms(function: Callable[[], Any], repetitions: int = 20) -> float:
    """Median processor time of a call after the first, in milliseconds."""
    times = []
    for _ in range(repetitions + 1):
        start = time.process_time()
        jax.block_until_ready(function())
        times.append(1000 * (time.process_time() - start))
    return statistics.median(times[1:])


def command() -> str:
    """Command line of the current process."""
    return shlex.join(["python", *sys.argv])


def save_row(path: Path, row: Row, identity: Sequence[str]) -> None:
    """Saves a row to a JSON file; it replaces the row with equal ``identity`` entries, if any."""
    rows = load_rows(path)
    same = [all(other[name] == row[name] for name in identity) for other in rows]
    if any(same):
        rows[same.index(True)] = row
    else:
        rows.append(row)
    write_json(path, {"rows": rows})


def load_rows(path: Path) -> list[Row]:
    """Rows of a JSON file; empty if the file doesn't exist."""
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []


def mse_by_protocol(run: Run, variables: Variables, dataset: Dataset) -> dict[str, float]:
    """Test MSE per pixel for each estimate of z (sample, mean) and c (one-hot, relaxed, softmax).

    Args:
        run: run of an objective with a Gumbel-softmax c.
        variables: parameters and batch statistics to evaluate.
        dataset: dataset of the test images.
    """
    split = Batch(dataset.test_images, dataset.test_labels)
    temperature = run.config.objective.temperature  # type: ignore[attr-defined]
    errors = over_split(_errors, (run.network, temperature), (variables, run.key("test")), split)
    pixels = np.prod(split.images.shape[1:])
    names = [f"{z}, {c}" for z in _Z_ESTIMATES for c in _C_ESTIMATES]
    return {
        name: float(np.mean(error, dtype=np.float64) / pixels)
        for name, error in zip(names, errors, strict=True)
    }


def _errors(
    network: Autoencoder,
    temperature: float,
    variables: Variables,
    key: Array,
    batch: Batch,
    examples: Array,
) -> list[Array]:
    """Squared errors per example, in the order of ``_Z_ESTIMATES`` x ``_C_ESTIMATES``."""
    keys = example_keys(key, 0, examples)
    images = scale_pixels(batch.images)

    def errors(network: Autoencoder) -> list[Array]:
        posterior = network.infer(images)
        logits = cast(Array, posterior.logits)
        styles = (
            sampling.gaussian(keys.gaussian, posterior.mean, posterior.logvar),
            posterior.mean,
        )
        characters = (
            sampling.one_hot_argmax(logits),
            sampling.gumbel_softmax(keys.gumbel, logits, temperature),
            jax.nn.softmax(logits),
        )
        return [
            losses.squared_error(network.decode(jnp.concatenate([z, c], axis=-1)), images)
            for z in styles
            for c in characters
        ]

    return nn.apply(errors, network)(variables)

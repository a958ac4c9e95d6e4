"""The one configuration of a training run: the source of flags, config.json and resume checks."""

from dataclasses import dataclass, replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from jvae_jax.data import DATA_DIR, DATASETS, Dataset
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.objectives import OBJECTIVES, RECONSTRUCTION_LOSSES, Objective, default_capacity_steps
from jvae_jax.training import distributed
from jvae_jax.training.step import EMA_DECAY
from jvae_jax.validation import (
    HYPERPARAMETERS,
    check_types,
    hyperparameter,
    hyperparameters,
    option,
    require,
)

PRECISIONS = {"float32": None, "bfloat16": jnp.bfloat16}
"""What the networks may compute in."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides how a run goes. Defaults are the paper's values.

    Raises:
        ValueError: if a value is of another type or out of range, or the objective has no such
            hyperparameter.
    """

    objective: str = option("what to train", default="ours", choices=tuple(OBJECTIVES))
    dataset: str = option(
        f"what to train on: {', '.join(DATASETS)}, or PATH.npz; auto: the full MNIST if it can be "
        "had, else the 5,000 digits of it that need no network; folder: the pictures in "
        "--data_dir, a sub-folder for each class",
        default="auto",
    )
    data_dir: str = option(
        "folder of the original files, where they are there, of downloads and prepared data",
        default=DATA_DIR,
    )
    workdir: str | None = option(
        "folder of the run; default: runs/<objective>-<dataset>-<seed>", default=None
    )
    seed: int = option("of the initial weights, the order of examples and all noise", default=0)
    epochs: int = option("passes over the training data", default=100)
    batch_size: int = option("images in a step, over all devices", default=64)
    learning_rate: float = option("Adam's, per step", default=1e-3)
    ema_decay: float = option(
        "of the moving average of the weights, which is what is evaluated and draws; 0: the last "
        "weights",
        default=EMA_DECAY,
    )
    num_labels: str | int = option(
        "training images that keep their label, as many of each class, chosen by the seed",
        default="all",
    )
    labelled_batch_fraction: float = option(
        "of each batch that has a label, where fewer of the data have one", default=0.25
    )
    balance_classes: bool = option(
        "draw every class as often, with replacement, however few images it has; all must have "
        "labels",
        default=False,
    )
    image_size: int = option("height and width to resize to, in pixels, divisible by 8", default=32)
    latents: int = option("size of the continuous z", default=10)
    fixed_latents: int = option("how many of them are always 0", default=0)
    reconstruction_loss: str = option(
        "-log p(x|z,c), up to a constant", default="bernoulli_nll", choices=RECONSTRUCTION_LOSSES
    )
    alpha: float | None = hyperparameter(
        "alpha", "weight of the CVAE's classifier; 1000 suits few labels"
    )
    consistency_weight: float | None = hyperparameter(
        "consistency_weight",
        "weight of what c says otherwise of slightly distorted images, which helps where few have "
        "a label",
    )
    beta: float | None = hyperparameter("beta", "weight of KL(z), or of its distance from C_z")
    gamma: float | None = hyperparameter("gamma", "weight of KL(c)'s distance from C_c")
    capacity_z: float | None = hyperparameter("capacity_z", "C_z after the ramp, in nats")
    capacity_c: float | None = hyperparameter("capacity_c", "C_c after the ramp, in nats")
    unlabelled_capacity_c: float | None = hyperparameter(
        "unlabelled_capacity_c", "C_c of unlabelled images after the ramp, in nats"
    )
    capacity_steps: int | None = option(
        "steps over which capacities rise from 0; default: the paper's 25,000 of 93,750, or the "
        "same share of a shorter run",
        default=None,
    )
    temperature: float | None = hyperparameter("temperature", "of the Gumbel-softmax")
    precision: str = option(
        "what the networks compute in; parameters, statistics and losses are float32 in any case",
        default="float32",
        choices=PRECISIONS,
    )
    save_every: int | None = option(
        "epochs between checkpoints and sample sheets; default: about 1,000 steps' worth",
        default=None,
    )
    coordinator: str | None = option(
        "HOST:PORT of the first of several processes that train together; auto: JAX finds them, on "
        "TPU pods and Slurm",
        default=None,
    )
    num_processes: int | None = option("how many of them there are", default=None)
    process_id: int | None = option("which of them this is, from 0", default=None)
    profile: bool = option(
        "write a trace of the second 100 steps, or of the second epoch if that is shorter, into "
        "the run's folder, for TensorBoard or Perfetto",
        default=False,
    )

    def __post_init__(self) -> None:
        check_types(self)
        for name, known in (
            ("objective", OBJECTIVES),
            ("reconstruction_loss", RECONSTRUCTION_LOSSES),
            ("precision", PRECISIONS),
        ):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"unknown {name} {value!r}; there are {', '.join(known)}")
        for name in ("epochs", "batch_size", "latents", "learning_rate", "temperature"):
            require(self, name, lambda value: value > 0, "above 0")
        require(self, "ema_decay", lambda value: 0 <= value < 1, "0 or more and below 1")
        require(
            self,
            "fixed_latents",
            lambda value: 0 <= value <= self.latents,
            f"from 0 to latents, {self.latents}",
        )
        for name in ("seed", *HYPERPARAMETERS):
            require(self, name, lambda value: value >= 0, "0 or more")
        require(self, "save_every", lambda value: value >= 1, "1 or more")
        require(
            self, "image_size", lambda size: size > 0 and size % 8 == 0, "a multiple of 8 above 0"
        )
        if str(self.num_labels).isdecimal():
            object.__setattr__(self, "num_labels", int(self.num_labels))
        elif self.num_labels != "all":
            raise ValueError(f"num_labels must be all or 0 or more, got {self.num_labels}")
        if self.num_labels != "all" and not self.reads_labels:
            raise ValueError(f"{self.objective} reads no labels, so num_labels changes nothing")
        distributed.check(self.coordinator, self.num_processes, self.process_id)
        if self.balance_classes and not self.reads_labels:
            raise ValueError(f"{self.objective} reads no labels, so it can't balance classes")
        if self.balance_classes and self.num_labels != "all":
            raise ValueError(
                f"balance_classes needs every label, so num_labels must be all, got "
                f"{self.num_labels}; the few labels that are kept are balanced anyway"
            )
        require(self, "labelled_batch_fraction", lambda share: 0 < share < 1, "between 0 and 1")
        own = hyperparameters(self.objective)
        for name in HYPERPARAMETERS:
            if getattr(self, name) is not None and name not in own:
                has = f"it has {', '.join(own)}" if own else "it has no hyperparameters"
                raise ValueError(f"{self.objective} has no {name}; {has}")

    def resolve(self, dataset: Dataset) -> "TrainConfig":
        """The same configuration with every default filled in for these data.

        Raises:
            ValueError: if the images' height isn't divisible by 8, or classes are to be balanced
                but some images have none.
        """
        if self.balance_classes and not dataset.all_labelled:
            raise ValueError(
                f"balance_classes needs every label; {np.sum(dataset.train_labels < 0)} of "
                f"{len(dataset.train_labels)} training images have none"
            )
        batches = len(dataset.train_labels) / self.batch_size
        defaults = hyperparameters(self.objective)
        if "capacity_steps" in defaults:
            defaults["capacity_steps"] = default_capacity_steps(self.epochs * batches)
        given = {name: getattr(self, name) for name in defaults}
        return replace(
            self,
            dataset=dataset.name,
            image_size=dataset.image_shape[0],
            workdir=self.workdir
            or f"runs/{self.objective}-{self._folder_name(dataset.name)}-{self.seed}",
            save_every=self.save_every or max(1, round(1000 / max(batches, 1))),
            **{name: default for name, default in defaults.items() if given[name] is None},
        )

    def _folder_name(self, dataset: str) -> str:
        """A data set's name as a part of a folder's."""
        if dataset == "folder":
            return Path(self.data_dir).expanduser().absolute().name
        return Path(dataset).stem if dataset.endswith(".npz") else dataset.replace("/", "_")

    def make_objective(
        self, *, all_labelled: bool = False, labelled_fraction: float | None = None
    ) -> Objective:
        """The objective with its hyperparameters.

        Args:
            all_labelled: no label is -1.
            labelled_fraction: the share of labelled examples, where batches hold another share.
        """
        given = {name: getattr(self, name) for name in hyperparameters(self.objective)}
        given = {name: value for name, value in given.items() if value is not None}
        if self.objective == "cvae":
            given["all_labelled"] = all_labelled
        if self.reads_labels:
            given["labelled_fraction"] = labelled_fraction
        return OBJECTIVES[self.objective](reconstruction_loss=self.reconstruction_loss, **given)

    @property
    def reads_labels(self) -> bool:
        """Whether labels matter to the objective."""
        return self.objective in ("cvae", "ours")

    def labelled_per_batch(self, labels: Int[np.ndarray, "examples"]) -> int | None:
        """How many of a batch are drawn from the labelled examples.

        Returns:
            None where batches are drawn from all examples alike: labels don't matter, there is
            none, or as large a share of the data has one.
        """
        labelled = np.mean(labels >= 0)
        if not self.reads_labels or labelled == 0 or labelled >= self.labelled_batch_fraction:
            return None
        return min(
            max(1, round(self.batch_size * self.labelled_batch_fraction)), self.batch_size - 1
        )

    def make_model(self, *, image_shape: tuple[int, int, int], classes: int) -> Autoencoder:
        """The model that the objective trains."""
        objective = OBJECTIVES[self.objective]
        has_classes = objective.discrete or objective.conditional
        return Autoencoder(
            image_shape,
            self.latents,
            classes if has_classes else 0,
            objective.conditional,
            self.fixed_latents,
            dtype=PRECISIONS[self.precision],
        )

"""Configuration of a training run: the source of the flags, config.json and resume checks."""

import math
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from jvae_jax.data import DATA_DIR, Dataset
from jvae_jax.data.neighbours import CANDIDATES
from jvae_jax.memory import require_memory
from jvae_jax.models.autoencoder import DEPTH, FILTERS, HIDDEN, Autoencoder, padded
from jvae_jax.objectives import OBJECTIVES, Objective, Ours
from jvae_jax.training import distributed
from jvae_jax.training.feeding import STEPS_PER_DISPATCH, DataPlace, lies_on_host
from jvae_jax.training.logbook import LogbookKind
from jvae_jax.training.parallel import DeviceMapping
from jvae_jax.training.step import EMA_DECAY
from jvae_jax.types import LabelInfo
from jvae_jax.validation import check_types, require

_DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}
"""Data types of the networks' arithmetic; None computes in the type of the inputs."""
_ACTIVATION_BYTES = 300
"""Memory of a training step per pixel of a batch: activations and their gradients, as measured."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Configuration of a training run. Defaults are the paper's values, where it gives them.

    ``jvae train`` connects to the other processes by ``coordinator``, ``num_processes`` and
    ``process_id``; in Python, call :func:`jvae_jax.training.distributed.connect` before ``fit``.

    Raises:
        ValueError: if a value has the wrong type, is out of range, or contradicts another.
    """

    objective: Objective = field(default_factory=Ours)
    """Training objective; its hyperparameters are flags too."""
    dataset: str = "auto"
    """Dataset: mnist, mnist_5k, hiragana73, kmnist, k49, kuzushiji_kanji, emnist/letters,
    emnist/balanced, emnist/bymerge, emnist/byclass, emnist/digits, emnist/mnist, etl4, etl7, etl8b,
    etl8g, etl9b, etl9g, fashion_mnist, or the path of an .npz file; auto: the full MNIST if it is
    found or can be downloaded, else the 5,000 digits that need no download; folder: the images in
    --data_dir, a sub-folder for each class."""
    data_dir: str = DATA_DIR
    """Folder of the original files, if present, of downloads and of prepared data."""
    workdir: str | None = None
    """Folder of the run. By default runs/<objective>-<dataset>-<seed>."""
    init_from: str | None = None
    """Model with whose weights the run starts: the name of a packaged model, hf://OWNER/NAME, or
    the folder of a run or of an exported model. Classes are matched by their names; new ones start
    at random. Capacities start at their final values unless --capacity_steps says otherwise, and
    labels are used from the first epoch unless --unsupervised_epochs does."""
    seed: int = 0
    """Random seed of the initial weights, the order of examples and all noise."""
    epochs: int = 100
    """Passes over the training data."""
    batch_size: int = 64
    """Images per step, over all devices."""
    learning_rate: float = 1e-3
    """Learning rate of Adam."""
    ema_decay: float = EMA_DECAY
    """Decay of the exponential moving average (EMA) of the variables, which is used for
    evaluation and sampling; 0 disables averaging."""
    num_labels: str | int = "all"
    """Number of training images that keep their label, balanced over classes and chosen by the
    seed."""
    labelled_batch_fraction: float = 0.25
    """Labelled fraction of each batch, if a smaller fraction of the data is labelled."""
    pseudo_labels_from: str | None = None
    """Model that labels more training images, given as for --init_from: of the images that it reads
    as each class, the 40 percent of which it is most certain. Classes are matched by their names;
    each needs a label both in this run and in that model's. With few labels, take a model of
    --preset=few_labels with the same labels (--num_labels, --seed) in another --workdir. Not in the
    paper."""
    label_propagation: bool = False
    """Label the other training images before training: labels spread from image to image over the
    graph of the 5 nearest images of each, found in about two minutes for 60,000 on two cores. Each
    class needs a label. A message says how many labels are wrong in a two-fold validation. Not in
    the paper."""
    balance_classes: bool = False
    """Sample all classes equally often, with replacement. Needs a label for every image."""
    image_size: int = 32
    """Height and width to which images are resized, in pixels."""
    binarize: bool = False
    """Make every pixel 0 or 255 once, before training: at random, 255 with a probability of
    pixel / 255 (static binarization)."""
    latents: int = 10
    """Dimension of the continuous latent z."""
    fixed_latents: int = 0
    """Number of dimensions of z that are fixed at 0."""
    depth: int = DEPTH
    """Stride-2 convolutions of the encoder, and transposed ones of the decoder."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Data type of the networks' arithmetic; parameters, statistics and losses are float32."""
    save_every: int | None = None
    """Epochs between checkpoints and sample grids. By default about 1,000 steps."""
    log: LogbookKind = "none"
    """Record the run for TensorBoard or for Weights & Biases too, in the run's folder."""
    data_on: DataPlace = "auto"
    """Where the training images lie: on each device, or on the host, which sends the examples of
    100 steps at a time; auto: on the host if they take more than 1 GiB. Results are the same."""
    parallel: DeviceMapping = "pmap"
    """Transformation that runs a step on all devices; results are the same."""
    coordinator: str | None = None
    """HOST:PORT of the first of several processes that train together; auto: detected by JAX, on
    TPU pods and Slurm."""
    num_processes: int | None = None
    """Number of processes."""
    process_id: int | None = None
    """Index of this process, from 0."""
    profile: bool = False
    """Write a profiler trace of the second dispatch (100 steps, or an epoch if shorter) to the
    run's folder, for TensorBoard or Perfetto."""

    def __post_init__(self) -> None:
        if not isinstance(self.objective, Objective):
            raise ValueError(
                f"objective must be an instance such as jvae_jax.Ours(), got {self.objective!r}"
            )
        check_types(self)
        # The types in which JAX counts steps and takes seeds; it would drop a seed's higher bits.
        for name in ("epochs", "batch_size", "latents", "image_size", "save_every"):
            require(self, name, lambda value: value < 2**31, "below 2,147,483,648")
        require(self, "seed", lambda value: value < 2**32, "below 4,294,967,296")
        for name in ("epochs", "batch_size", "image_size", "latents", "learning_rate"):
            require(self, name, lambda value: value > 0, "above 0")
        require(self, "ema_decay", lambda value: 0 <= value < 1, "0 or more and below 1")
        require(
            self,
            "fixed_latents",
            lambda value: 0 <= value <= self.latents,
            f"from 0 to latents, {self.latents}",
        )
        require(self, "depth", lambda value: 1 <= value <= 6, "from 1 to 6")
        require(self, "seed", lambda value: value >= 0, "0 or more")
        require(self, "save_every", lambda value: value >= 1, "1 or more")
        require(self, "labelled_batch_fraction", lambda value: 0 < value < 1, "between 0 and 1")
        for name in ("init_from", "pseudo_labels_from"):
            if getattr(self, name) == "":
                raise ValueError(f"{name} must be a name or a folder, got ''")
        if str(self.num_labels).isdecimal():
            object.__setattr__(self, "num_labels", int(self.num_labels))
        elif self.num_labels != "all":
            raise ValueError(f"num_labels must be all or 0 or more, got {self.num_labels}")
        if self.num_labels != "all" and not self.objective.uses_labels:
            raise ValueError(
                f"{self.objective.name} uses no labels, so num_labels has no effect; leave it out"
            )
        for name in ("pseudo_labels_from", "label_propagation"):
            if getattr(self, name) and not self.objective.uses_labels:
                raise ValueError(
                    f"{self.objective.name} uses no labels, so {name} has no effect; leave it out"
                )
        if self.pseudo_labels_from and self.label_propagation:
            raise ValueError(
                f"labels are added either by the model of pseudo_labels_from, got "
                f"{self.pseudo_labels_from}, or by label_propagation; leave one of them out"
            )
        unsupervised_epochs = getattr(self.objective, "unsupervised_epochs", 0)
        if unsupervised_epochs >= self.epochs:
            raise ValueError(
                f"unsupervised_epochs must be below epochs, {self.epochs}, so that labels are "
                f"used, got {unsupervised_epochs}"
            )
        if self.balance_classes and not self.objective.uses_labels:
            raise ValueError(f"{self.objective.name} uses no labels, so it can't balance classes")
        if self.balance_classes and self.num_labels != "all":
            raise ValueError(
                f"balance_classes needs every label, so num_labels must be all, got "
                f"{self.num_labels}; the labels that num_labels keeps are balanced anyway"
            )
        distributed.check(self.coordinator, self.num_processes, self.process_id)

    def resolve(self, dataset: Dataset) -> "TrainConfig":
        """Returns the configuration with every default filled in for a dataset.

        Raises:
            ValueError: if classes are to be balanced but some training images are unlabelled,
                images are to be binary but aren't, the steps exceed 32 bits, or training exceeds
                the machine's memory.
        """
        if self.binarize and not np.isin(dataset.train_images, (0, 255)).all():
            raise ValueError(
                "binarize needs binary images, but the dataset has other pixels than 0 and 255; "
                "load it by jvae_jax.data.load(..., binarize=True) or use dataset.binarized()"
            )
        if self.balance_classes and (dataset.train_labels < 0).any():
            raise ValueError(
                f"balance_classes needs every label; {np.sum(dataset.train_labels < 0)} of "
                f"{len(dataset.train_labels)} training images have none"
            )
        examples = len(dataset.train_labels)
        neighbours = self.objective.neighbour_count()
        if neighbours >= examples:
            raise ValueError(
                f"neighbours must be below the {examples} training images, got {neighbours}"
            )
        steps_per_epoch = examples / self.batch_size
        steps = examples // self.batch_size
        if self.epochs * steps >= 2**31:
            raise ValueError(
                f"epochs of {steps:,} steps must be below {-(-(2**31) // steps):,}, as steps are "
                f"counted in 32 bits, got {self.epochs}"
            )
        default_workdir = (
            f"runs/{self.objective.name}-{self._folder_name(dataset.name)}-{self.seed}"
        )
        resolved = replace(
            self,
            objective=(
                self.objective.resolve(0.0, 0)
                if self.init_from
                else self.objective.resolve(self.epochs * steps_per_epoch, self.epochs)
            ),
            dataset=dataset.name,
            image_size=dataset.image_shape[0],
            workdir=self.workdir or default_workdir,
            save_every=self.save_every or max(1, round(1000 / max(steps_per_epoch, 1))),
        )
        require_memory(
            resolved.training_bytes(dataset),
            f"training on images of {dataset.image_shape} in batches of {self.batch_size:,} with "
            f"{self.latents:,} latents",
        )
        return resolved

    def training_bytes(self, dataset: Dataset) -> int:
        """Estimates the memory that training needs on this machine beside the dataset.

        Returns:
            5 values of 4 bytes for each parameter (itself, its average, Adam's two moments and its
            gradient), 1 byte for each value of the training images on the device, or 3 for each of
            a dispatch if they lie on the host, twice that with neighbours, 20 bytes for each
            candidate if nearest images are searched, and, if the device is the CPU, 300 bytes for
            each pixel of a process's part of the batch.
        """
        network = self.make_network(
            image_shape=dataset.image_shape, classes=len(dataset.class_names)
        )
        estimate = 5 * parameter_bytes(network)
        neighbours = self.objective.neighbour_count()
        copies = 2 if neighbours else 1
        if neighbours or self.label_propagation:
            # Their indices and distances.
            examples = len(dataset.train_labels)
            estimate += 20 * examples * min(max(CANDIDATES, neighbours), examples)
        if lies_on_host(self.data_on, dataset.train_images):
            steps = min(STEPS_PER_DISPATCH, len(dataset.train_labels) // self.batch_size)
            examples = steps * self.batch_size // jax.process_count()
            estimate += 3 * copies * examples * math.prod(dataset.image_shape)
        else:
            estimate += copies * dataset.train_images.nbytes
        if jax.default_backend() == "cpu":
            height, width, _ = dataset.image_shape
            images = self.batch_size // jax.process_count()
            estimate += _ACTIVATION_BYTES * images * height * width
        return estimate

    def _folder_name(self, dataset: str) -> str:
        """Name of the dataset as part of a folder name."""
        if dataset == "folder":
            return Path(self.data_dir).expanduser().absolute().name
        return Path(dataset).stem if dataset.endswith(".npz") else dataset.replace("/", "_")

    def label_info(self, dataset: Dataset) -> LabelInfo:
        """Returns the properties of the labels on which the objective depends."""
        labels = dataset.train_labels
        is_mixed = self.labelled_per_batch(labels) is not None
        return LabelInfo(
            all_labelled=dataset.all_labelled,
            labelled_fraction=float(np.mean(labels >= 0)) if is_mixed else None,
        )

    def labelled_per_batch(self, labels: Int[np.ndarray, "examples"]) -> int | None:
        """Returns the number of labelled examples in each batch.

        Args:
            labels: labels of the training images; -1 means unlabelled.

        Returns:
            None if batches are drawn uniformly: the objective uses no labels, none is given, or
            at least ``labelled_batch_fraction`` of the data is labelled.
        """
        labelled = np.mean(labels >= 0)
        if (
            not self.objective.uses_labels
            or labelled == 0
            or labelled >= self.labelled_batch_fraction
        ):
            return None
        count = round(self.batch_size * self.labelled_batch_fraction)
        return min(max(1, count), self.batch_size - 1)

    def make_network(self, *, image_shape: tuple[int, int, int], classes: int) -> Autoencoder:
        """Returns the network that the objective trains."""
        has_classes = self.objective.has_categorical or self.objective.conditional
        return Autoencoder(
            image_shape,
            self.latents,
            classes if has_classes else 0,
            self.objective.conditional,
            self.fixed_latents,
            dtype=_DTYPES[self.precision],
            depth=self.depth,
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the configuration as config.json stores it."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return values | {"objective": {"name": self.objective.name, **asdict(self.objective)}}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "TrainConfig":
        """Returns the configuration that :meth:`to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: if it isn't one.
        """
        hyperparameters = dict(values["objective"])
        name = hyperparameters.pop("name")
        if name not in OBJECTIVES:
            raise ValueError(f"unknown objective {name!r}; there are {', '.join(OBJECTIVES)}")
        return cls(**{**values, "objective": OBJECTIVES[name](**hyperparameters)})


def parameter_bytes(network: Autoencoder) -> int:
    """Returns the memory of the linear layers' parameters, which are nearly all, in float32."""
    height, width, _ = network.image_shape
    rows, columns = (padded(size, network.depth) >> network.depth for size in (height, width))
    features = FILTERS * rows * columns
    networks = 3 if network.conditional else 2  # encoder, decoder and classifier
    return 4 * HIDDEN * (networks * features + 3 * (network.latents + network.classes))

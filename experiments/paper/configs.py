"""Command-line options of each study."""

from dataclasses import dataclass, fields
from typing import Any

from jvae_jax import OBJECTIVES, TrainConfig, TrainedModel, data, load
from jvae_jax.data import Dataset
from jvae_jax.evaluation import classifier
from jvae_jax.evaluation.classifier import EvalClassifier
from jvae_jax.training.run import Run
from jvae_jax.validation import require
from paper import studies
from paper.report import ReportConfig

NUM_LABELS: tuple[int | str, ...] = (10, 20, 50, 100, 600, 1000, 3000, "all")
"""Numbers of labels of the few-label study."""
MAX_REPEATED_NUM_LABELS = 100
"""Largest number of labels for which several label subsets are drawn."""


@dataclass(frozen=True, kw_only=True)
class StudyConfig(ReportConfig):
    """Options of every study."""

    epochs: int = 100
    """Epochs of each run."""
    capacity_steps: int | None = None
    """Steps over which capacities rise, for the objectives that have capacities; default: that of
    train.py."""
    dataset: str = "mnist"
    """Dataset to train on."""
    data_dir: str = data.DATA_DIR
    """Folder of original files, downloads and prepared data."""
    runs: str = "runs/table1"
    """Folder of the runs."""

    def __post_init__(self) -> None:
        require(self, "epochs", lambda value: value >= 1, "1 or more")

    def load(self, image_size: int = 32, *, binarize: bool = False) -> Dataset:
        return data.load(self.dataset, self.data_dir, image_size=image_size, binarize=binarize)

    def eval_classifier(self, dataset: Dataset) -> EvalClassifier:
        eval_classifier = classifier.load_or_train(dataset, self.data_dir)
        print(f"accuracy of the evaluation classifier: {eval_classifier.accuracy:.4f}")
        return eval_classifier

    def train_config(self, objective: str, folder: str, **values: Any) -> TrainConfig:
        """Configuration of a run.

        Args:
            objective: name of the objective.
            folder: folder of the run, in ``runs``.
            values: fields of the objective and of TrainConfig.
        """
        hyperparameters = {field.name for field in fields(OBJECTIVES[objective])}
        default_capacity = getattr(OBJECTIVES[objective](), "capacity_z", None)
        has_capacity = values.get("capacity_z", default_capacity) is not None
        if has_capacity and values.get("capacity_steps") is None:
            values["capacity_steps"] = self.capacity_steps
        given = {name: values.pop(name) for name in hyperparameters & values.keys()}
        return TrainConfig(
            objective=OBJECTIVES[objective](**given),
            dataset=self.dataset,
            data_dir=self.data_dir,
            epochs=self.epochs,
            workdir=f"{self.runs}/{folder}",
            **values,
        )

    def train(
        self,
        objective: str,
        dataset: Dataset,
        eval_classifier: EvalClassifier,
        seed: int = 0,
        **flags: bool,
    ) -> tuple[Run, studies.Row]:
        """Trains and evaluates an objective with its default hyperparameters."""
        folder = "-".join([objective, f"{self.epochs}-epochs-{seed}", *flags])
        config = self.train_config(objective, folder, seed=seed, **flags)
        return studies.train_and_evaluate(
            config, dataset, eval_classifier, class_names=list(dataset.class_names)
        )


@dataclass(frozen=True, kw_only=True)
class Table1Config(StudyConfig):
    """Options of table 1."""

    seeds: int = 3
    """Runs of each objective."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "seeds", lambda value: value >= 1, "1 or more")


@dataclass(frozen=True, kw_only=True)
class Figure3Config(StudyConfig):
    """Options of figure 3."""

    epochs: int = 500
    """Epochs of each run."""
    dataset: str = "hiragana73"
    """Dataset to train on."""
    runs: str = "runs/figure3"
    """Folder of the runs."""


@dataclass(frozen=True, kw_only=True)
class HiraganaSettingsConfig(Table1Config):
    """Options of the settings for hiragana."""

    dataset: str = "hiragana73"
    """Dataset to train on."""
    runs: str = "runs/hiragana-settings"
    """Folder of the runs."""
    seeds: int = 1
    """Runs of each setting."""


@dataclass(frozen=True, kw_only=True)
class FixedDimensionsConfig(StudyConfig):
    """Options of the study of fixed dimensions of z."""

    epochs: int = 20
    """Epochs of each run."""
    runs: str = "runs/fixed-dimensions"
    """Folder of the runs."""


@dataclass(frozen=True, kw_only=True)
class ProtocolVariantsConfig(StudyConfig):
    """Options of the study of protocol variants."""

    epochs: int = 20
    """Epochs of each run."""
    runs: str = "runs/protocol-variants"
    """Folder of the runs."""


@dataclass(frozen=True, kw_only=True)
class SettingsConfig(Table1Config):
    """Options of ablations, and of the selection of models and presets."""

    epochs: int = 10
    """Epochs of each run."""
    runs: str = "runs/settings"
    """Folder of the runs."""


@dataclass(frozen=True, kw_only=True)
class FrontierConfig(Table1Config):
    """Options of the frontier."""

    epochs: int = 40
    """Epochs of each run."""
    runs: str = "runs/frontier"
    """Folder of the runs."""
    seeds: int = 1
    """Runs of each setting."""
    capacity_z: float | None = None
    """Only this capacity, in nats, or 0 for none and a weight of KL(z) of 1; default: 2, 5, 10, 16,
    25 and 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "capacity_z", lambda value: value >= 0, "0 or more")

    def capacities(self) -> tuple[float | None, ...]:
        """Capacities in nats; None is a weight of KL(z) of 1."""
        if self.capacity_z is None:
            return (*studies.CAPACITIES, None)
        return (self.capacity_z or None,)


@dataclass(frozen=True, kw_only=True)
class DisentanglementConfig(Table1Config):
    """Options of the study of disentanglement."""

    epochs: int = 20
    """Epochs of each run."""
    runs: str = "runs/disentanglement"
    """Folder of the runs."""
    capacity_z: float | None = None
    """Only this capacity, in nats, or 0 for the objectives without one; default: 5, 10, 16 and 0.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "capacity_z", lambda value: value >= 0, "0 or more")

    def settings(self) -> list[tuple[str, float | None]]:
        """Objectives and their capacities in nats; None for objectives without a capacity."""
        capacities = (self.capacity_z or None,)
        if self.capacity_z is None:
            capacities = (*studies.DISENTANGLEMENT_CAPACITIES, None)
        return [
            (name, capacity)
            for capacity in capacities
            for name, objective in OBJECTIVES.items()
            if (getattr(objective(), "capacity_z", None) is None) == (capacity is None)
        ]


@dataclass(frozen=True, kw_only=True)
class LikelihoodConfig(StudyConfig):
    """Options of the likelihood of binary MNIST."""

    runs: str = "runs/likelihood"
    """Folder of the runs."""
    images: int = 10_000
    """Number of test images, the first ones."""
    samples: int = 5000
    """Samples of z for each image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "images", lambda value: value >= 2, "2 or more")
        require(self, "samples", lambda value: value >= 1, "1 or more")


@dataclass(frozen=True, kw_only=True)
class LabelsConfig(StudyConfig):
    """Options of the few-label study."""

    epochs: int = 20
    """Epochs of each run."""
    runs: str = "runs/labels"
    """Folder of the runs."""
    draws: int = 10
    """Number of label subsets of 100 or fewer labels; larger numbers of labels have one subset."""
    num_labels: str | int | None = None
    """Only this number of labels, or all; default: 10, 20, 50, 100, 600, 1000, 3000 and all."""
    method: str | None = None
    """Only this method, by its name in the table; default: all of them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "draws", lambda value: value >= 1, "1 or more")
        if not self.methods():
            names = ", ".join(_label_methods())
            raise ValueError(f"unknown method {self.method!r}; methods: {names}")
        if str(self.num_labels).isdecimal():
            object.__setattr__(self, "num_labels", int(self.num_labels or 0))
            require(self, "num_labels", lambda value: value >= 1, "1 or more")
        elif self.num_labels not in (None, "all"):
            raise ValueError(f"num_labels must be all or 1 or more, got {self.num_labels}")

    def methods(self) -> tuple[str, ...]:
        """Names of the methods to compare."""
        return tuple(name for name in _label_methods() if self.method in (None, name))

    def subsets(self) -> list[tuple[int, int | str]]:
        """Seeds and sizes of the label subsets, of which all but the first are small."""
        counts = NUM_LABELS if self.num_labels is None else (self.num_labels,)
        return [
            (seed, count)
            for seed in range(self.draws)
            for count in counts
            if seed == 0 or (isinstance(count, int) and count <= MAX_REPEATED_NUM_LABELS)
        ]


def _label_methods() -> tuple[str, ...]:
    return studies.SUPERVISED_BASELINE, *studies.LABEL_METHODS


@dataclass(frozen=True, kw_only=True)
class FineTuningConfig(Table1Config):
    """Options of the study of fine-tuning."""

    epochs: int = 40
    """Epochs of the model that is trained on the other classes."""
    dataset: str = "hiragana73"
    """Dataset whose classes are divided."""
    runs: str = "runs/fine-tuning"
    """Folder of the runs."""
    new_classes: int = 20
    """Classes that are held out, and then learned."""
    images: int = 20
    """Training images of each of them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("new_classes", "images"):
            require(self, name, lambda value: value >= 1, "1 or more")


@dataclass(frozen=True, kw_only=True)
class BatchSizeConfig(StudyConfig):
    """Options of the study of batch sizes and learning rates."""

    epochs: int = 5
    """Epochs of each run."""
    runs: str = "runs/batch-size"
    """Folder of the runs."""


@dataclass(frozen=True, kw_only=True)
class ImageSizeConfig(StudyConfig):
    """Options of the study of larger images."""

    epochs: int = 40
    """Epochs of each run."""
    dataset: str = "hiragana73"
    """Dataset to train on."""
    runs: str = "runs/image-size"
    """Folder of the runs."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig(ReportConfig):
    """Options of a study of a trained model."""

    model: str = "digits"
    """Packaged model, or folder of a run or an exported model."""
    dataset: str = "mnist"
    """Dataset of the test images."""
    data_dir: str = data.DATA_DIR
    """Folder of original files, downloads and prepared data."""
    seed: int = 0
    """Random seed of the study."""

    def load(self) -> tuple[TrainedModel, Dataset]:
        """Loads the model, and the dataset at its size.

        Raises:
            ValueError: if the dataset has other classes than the model.
        """
        model = load(self.model)
        image_size, *_ = model.network.image_shape
        dataset = data.load(self.dataset, self.data_dir, image_size=image_size)
        if model.category_names != dataset.class_names:
            raise ValueError(f"model {self.model} has other classes than dataset {self.dataset}")
        return model, dataset


@dataclass(frozen=True, kw_only=True)
class PhotographsConfig(ModelConfig):
    """Options of the test on synthetic photographs."""

    images: int = 500
    """Test images, and blank sheets, under each condition."""

    def __post_init__(self) -> None:
        require(self, "images", lambda value: value >= 1, "1 or more")

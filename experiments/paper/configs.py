"""What each study takes: its flags, and what follows from them."""

from dataclasses import dataclass
from typing import Any

from jvae_jax import TrainConfig, data
from jvae_jax.data import Dataset
from jvae_jax.evaluation import classifier
from jvae_jax.evaluation.classifier import EvalClassifier
from jvae_jax.training.run import Run
from jvae_jax.validation import option, require
from paper import studies
from paper.report import ReportConfig

DRAWN_OFTEN = 100
"""So many labels are drawn several times."""


@dataclass(frozen=True, kw_only=True)
class StudyConfig(ReportConfig):
    epochs: int = option("of each run", default=100)
    capacity_steps: int | None = option(
        "as train.py's, for the objectives that have capacities", default=None
    )
    dataset: str = option("what to train on", default="mnist")
    data_dir: str = option("folder of the original files or of downloads", default=data.DATA_DIR)
    runs: str = option("folder of the runs", default="runs/table1")

    def __post_init__(self) -> None:
        require(self, "epochs", lambda value: value >= 1, "1 or more")

    def load(self, image_size: int = 32) -> Dataset:
        return data.load(self.dataset, self.data_dir, image_size=image_size, say=print)

    def eval_classifier(self, dataset: Dataset) -> EvalClassifier:
        eval_classifier = classifier.load(dataset, self.data_dir)
        print(f"the judge reads {eval_classifier.accuracy:.4f} of the test images' labels")
        return eval_classifier

    def training(self, objective: str, folder: str, **values: Any) -> TrainConfig:
        has_capacities = studies.has_capacities(objective)
        return TrainConfig(
            objective=objective,
            dataset=self.dataset,
            data_dir=self.data_dir,
            epochs=self.epochs,
            capacity_steps=self.capacity_steps if has_capacities else None,
            workdir=f"{self.runs}/{folder}",
            **values,
        )

    def trained(
        self,
        objective: str,
        dataset: Dataset,
        eval_classifier: EvalClassifier,
        seed: int = 0,
        **flags: bool,
    ) -> tuple[Run, studies.Row]:
        folder = "-".join([objective, f"{self.epochs}-epochs-{seed}", *flags])
        config = self.training(objective, folder, seed=seed, **flags)
        return studies.trained(
            config, dataset, eval_classifier, class_names=list(dataset.class_names)
        )


@dataclass(frozen=True, kw_only=True)
class Table1Config(StudyConfig):
    seeds: int = option("runs of each objective", default=3)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "seeds", lambda value: value >= 1, "1 or more")


@dataclass(frozen=True, kw_only=True)
class Figure3Config(StudyConfig):
    epochs: int = option("of each run", default=500)
    dataset: str = option("what to train on", default="hiragana73")
    runs: str = option("folder of the runs", default="runs/figure3")


@dataclass(frozen=True, kw_only=True)
class FixedDimensionsConfig(StudyConfig):
    epochs: int = option("of each run", default=20)
    runs: str = option("folder of the runs", default="runs/fixed-dimensions")


@dataclass(frozen=True, kw_only=True)
class ReadingsConfig(StudyConfig):
    epochs: int = option("of each run", default=20)
    runs: str = option("folder of the runs", default="runs/readings")


@dataclass(frozen=True, kw_only=True)
class SettingsConfig(Table1Config):
    epochs: int = option("of each run", default=10)
    runs: str = option("folder of the runs", default="runs/settings")


@dataclass(frozen=True, kw_only=True)
class LabelsConfig(StudyConfig):
    epochs: int = option("of each run", default=20)
    runs: str = option("folder of the runs", default="runs/labels")
    draws: int = option(f"of {DRAWN_OFTEN} labels; one of other numbers", default=5)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "draws", lambda value: value >= 1, "1 or more")

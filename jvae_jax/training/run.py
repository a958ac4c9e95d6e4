"""A run's folder: what is in it, and who may write there.

config.json     the configuration, the data and where the run started
metrics.jsonl   every term of the loss, per epoch, train and test
checkpoints/    the latest two and the best
samples.png     rows fix c, columns fix z; refreshed as it trains
evaluation.json the whole test split, once trained
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import optax
from jax import Array

from jvae_jax.data import Dataset
from jvae_jax.data.info import DatasetInfo
from jvae_jax.files import write_json
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.training import checkpoints
from jvae_jax.training.config import TrainConfig
from jvae_jax.training.provenance import environment
from jvae_jax.training.step import TrainState, init_state, state_shape

WEIGHTS = "model.safetensors"
"""What the folder of an exported model has in the place of checkpoints."""
_INCIDENTAL = (
    "workdir",
    "data_dir",
    "profile",
    "coordinator",
    "num_processes",
    "process_id",
)
"""Fields that don't decide how a run goes."""
_PURPOSES = ("init", "train", "test", "samples", "order")


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run's folder and what its config.json says."""

    workdir: Path
    config: TrainConfig
    data: DatasetInfo

    @property
    def model(self) -> Autoencoder:
        """The model it trains."""
        return self.config.make_model(
            image_shape=self.data.image_shape, classes=len(self.data.class_names)
        )

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Adam, with PyTorch's defaults, which are optax's."""
        return optax.adam(self.config.learning_rate)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return self.data.train_examples // self.config.batch_size

    @property
    def total_steps(self) -> int:
        """Steps from beginning to end."""
        return self.config.epochs * self.steps_per_epoch

    @property
    def metrics_path(self) -> Path:
        """One line of JSON for each epoch."""
        return self.workdir / "metrics.jsonl"

    @property
    def unlabelled_classes(self) -> tuple[int, ...]:
        """The classes of which training sees no label."""
        if self.config.objective == "joint_vae":
            return tuple(range(len(self.data.class_names)))
        return tuple(label for label, count in enumerate(self.data.labels_per_class) if count == 0)

    @property
    def category_names(self) -> tuple[str, ...]:
        """What each value of c is called: its class, or a number where c is unsupervised."""
        names = list(self.data.class_names)
        for index in self.unlabelled_classes:
            names[index] = f"c{index}"
        return tuple(names)

    def check_data(self, dataset: Dataset) -> None:
        """Raises ValueError unless it was trained on these data, some labels hidden or none."""
        if differences := _differences(
            self.data, DatasetInfo.of(visible_dataset(self.config, dataset))
        ):
            raise ValueError(f"{self.workdir} was trained on other data: {'; '.join(differences)}")

    def key(self, purpose: str) -> Array:
        """The run's key for one purpose: init, train, test, samples or order."""
        return jax.random.fold_in(jax.random.key(self.config.seed), _PURPOSES.index(purpose))

    def evaluation(self) -> dict[str, Any]:
        """What its folder keeps of its evaluation; empty if it wasn't evaluated."""
        try:
            return dict(json.loads((self.workdir / "evaluation.json").read_text(encoding="utf-8")))
        except (OSError, TypeError, ValueError):
            return {}

    def initial_state(self) -> TrainState:
        """The state before the first step, by the seed."""
        return init_state(self.model, self.optimizer, self.key("init"))

    def state_shape(self) -> TrainState:
        """The shapes and types of its states' arrays."""
        return state_shape(self.model, self.optimizer)

    @property
    def checkpoints_path(self) -> Path:
        """The folder of its checkpoints."""
        return self.workdir / "checkpoints"

    def load_state(self, checkpoint: str = "latest") -> TrainState:
        """The trained state, from the latest or the best checkpoint.

        Raises:
            CheckpointError: if there is none yet, or it can't be read.
        """
        like = self.state_shape()
        if checkpoint == "best":
            return checkpoints.restore_best(self.checkpoints_path, like)
        state, damaged = checkpoints.restore_latest(self.checkpoints_path, like)
        if state is None:
            raise checkpoints.CheckpointError(f"{self.workdir} has no checkpoint yet")
        for step, reason in damaged.items():
            raise checkpoints.CheckpointError(
                f"the checkpoint of step {step} in {self.workdir} is damaged ({reason}); to train "
                f"again goes on from step {int(state.step)}"
            )
        return state


def visible_dataset(config: TrainConfig, dataset: Dataset) -> Dataset:
    """What training may see of a data set: labels that are to be hidden are -1.

    Raises:
        ValueError: if there are fewer labels than are to be kept.
    """
    if isinstance(config.num_labels, str):
        return dataset
    return dataset.with_labels(config.num_labels, config.seed)


def plan_run(config: TrainConfig, dataset: Dataset) -> Run:
    """A run that has no folder yet, of a configuration that is resolved for the data."""
    assert config.workdir is not None
    facts = DatasetInfo.of(visible_dataset(config, dataset))
    return Run(workdir=Path(config.workdir).expanduser(), config=config, data=facts)


def start_run(config: TrainConfig, dataset: Dataset) -> Run:
    """Makes a run's folder, or takes up the one that is there.

    Args:
        config: the configuration, resolved for the data.
        dataset: the data to train on, of which only :func:`visible_dataset` labels count.

    Raises:
        ValueError: if the folder holds something else, or a run of another configuration or data.
        OSError: if it can't be written.
    """
    run = plan_run(config, dataset)
    workdir = run.workdir
    if (workdir / WEIGHTS).exists():
        raise ValueError(f"{workdir} holds an exported model; choose another --workdir")
    if (workdir / "config.json").exists():
        _check_same(load_run(workdir), run)
        return run
    if workdir.exists() and (not workdir.is_dir() or any(workdir.glob("[!.]*"))):
        raise ValueError(f"{workdir} holds something that isn't a run; choose another --workdir")
    workdir.mkdir(parents=True, exist_ok=True)
    contents = {
        "config": asdict(config),
        "data": asdict(run.data),
        "environment": environment(),
    }
    write_json(workdir / "config.json", contents)
    return run


def dataset_name(config: TrainConfig) -> str:
    """The data set to load: the one that a run in the folder has, where ``auto`` leaves it open."""
    if config.dataset == "auto" and config.workdir is not None:
        workdir = Path(config.workdir).expanduser()
        if (workdir / "config.json").exists():
            return load_run(workdir).config.dataset
    return config.dataset


def load_run(workdir: str | Path) -> Run:
    """Opens the folder of a run.

    Raises:
        FileNotFoundError: if there is no run.
        ValueError: if its config.json can't be understood.
    """
    workdir = Path(workdir).expanduser()
    path = workdir / "config.json"
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
        config = TrainConfig(**contents["config"])
        facts = DatasetInfo.from_json(contents["data"])
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"{workdir} is no run: it has no config.json") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} can't be understood: {error}") from error
    return Run(workdir=workdir, config=config, data=facts)


def _check_same(existing: Run, asked: Run) -> None:
    differences = [
        *_differences(existing.config, asked.config),
        *_differences(existing.data, asked.data),
    ]
    if differences:
        raise ValueError(
            f"{existing.workdir} holds another run: {'; '.join(differences)}. "
            "Go on with its own settings, or choose another --workdir"
        )


def _differences(there: Any, here: Any) -> list[str]:
    return [
        f"{name} is {was!r} there and {now!r} here"
        for (name, was), now in zip(asdict(there).items(), asdict(here).values(), strict=True)
        if was != now and name not in _INCIDENTAL
    ]

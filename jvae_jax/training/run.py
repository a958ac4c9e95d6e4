"""The folder of a run.

========================  =========================================================================
config.json               configuration, dataset and environment of the run
metrics.jsonl             every term of the loss, per epoch, train and test
checkpoints/              the latest two checkpoints and the best
samples.png               generated characters: rows fix c, columns fix z
curves.png                every term over epochs, train and test, when training ends or stops
evaluation.json           metrics on the whole test split; evaluation-best.json of the best
                          checkpoint, if it was evaluated
neighbours.npy            mutual neighbours of each training image, if the objective uses any
pseudo_labels.npy         labels of training images by another model or by propagation; -1: none
confusion.png             confusion matrix of generated characters, if they were evaluated
profile/                  profiler trace, if requested
tensorboard/, wandb/      records for TensorBoard and Weights & Biases, if requested
damaged_checkpoints/      checkpoints that could not be read, if any
.lock                     held by the process that trains
========================  =========================================================================
"""

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from jvae_jax import data
from jvae_jax.data import CONTENTS, Dataset
from jvae_jax.data.dataset import DatasetInfo
from jvae_jax.files import (
    array_digest,
    check_regular_file,
    load_arrays,
    lock_file,
    write_json,
)
from jvae_jax.hub import download, is_hub_address
from jvae_jax.memory import require_memory
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.pretrained import packaged_models
from jvae_jax.sampling import purpose_key
from jvae_jax.style_controls import StyleControls
from jvae_jax.trained_model import TrainedModel
from jvae_jax.training import checkpoints
from jvae_jax.training.config import TrainConfig, parameter_bytes
from jvae_jax.training.logbook import TENSORBOARD, WANDB
from jvae_jax.training.provenance import environment, numeric_environment
from jvae_jax.training.step import TrainState, init_state, state_shape
from jvae_jax.types import Devices, Variables

logger = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"
"""File that the folder of an exported model has instead of checkpoints."""
STYLE_CONTROLS = "style_controls.json"
"""File of style controls by digest of the weights, in the folder of a run or an exported model."""
FORMAT = 2
"""Version of config.json's layout and of all names in a run's files."""
_IGNORED_ON_RESUME = (
    "workdir",
    "data_dir",
    "profile",
    "parallel",
    "data_on",
    "coordinator",
    "num_processes",
    "process_id",
    "log",
)
"""Fields that may change when a run is resumed, and differ between processes."""
DEFAULT_BY_LENGTH: dict[str, Any] = {"capacity_steps": None, "unsupervised_epochs": -1}
"""Hyperparameters whose default depends on the length of the run, with the value that means the
default. A run that is trained for longer keeps them."""
_SET_BY_EPOCHS = (*DEFAULT_BY_LENGTH, "save_every")
"""Settings that by default follow from epochs and batch_size, which say more if they differ."""
_WRITTEN_FILES = (
    ".lock",
    "config.json",
    "metrics.jsonl",
    "samples.png",
    "curves.png",
    "evaluation.json",
    "neighbours.npy",
    "pseudo_labels.npy",
)
_WRITTEN_FOLDERS = ("checkpoints", "damaged_checkpoints", "profile", TENSORBOARD, WANDB)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run: its folder, configuration and dataset.

    Attributes:
        workdir: folder of the run.
        config: resolved configuration.
        data: description of the dataset.
        environment: environment in which the run was started; empty if it isn't recorded.
    """

    workdir: Path
    config: TrainConfig
    data: DatasetInfo
    environment: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def network(self) -> Autoencoder:
        """The unbound linen module."""
        return self.config.make_network(
            image_shape=self.data.image_shape, classes=len(self.data.class_names)
        )

    @cached_property
    def model(self) -> TrainedModel:
        """The trained model, of the latest checkpoint or exported; loaded once.

        Raises:
            ValueError: if the exported weights are damaged.
            CheckpointError: if there is no checkpoint yet, or it can't be read.
        """
        return self.load_model()

    def load_model(self, checkpoint: str = "latest") -> TrainedModel:
        """Loads the trained model.

        Args:
            checkpoint: "latest" or "best" (lowest negative ELBO on the test split); ignored if the
                folder is of an exported model.

        Raises:
            ValueError: if the exported weights are damaged.
            CheckpointError: if there is no checkpoint yet, or it can't be read.
        """
        if (self.workdir / WEIGHTS).is_file():
            return self.make_model(self._exported_weights())
        state = self.load_state(checkpoint)
        return self.make_model(state.average, step=int(state.step))

    def make_model(self, variables: Variables, *, step: int | None = None) -> TrainedModel:
        """Returns the run's network with the given variables.

        Args:
            variables: moving average of the trained variables.
            step: their training step; by default the last. As long as no label was used, no value
                of c is a class.
        """
        last_step = self.unsupervised_epochs * self.steps_per_epoch
        is_unsupervised = self.unsupervised_epochs > 0 and step is not None and step <= last_step
        all_classes = tuple(range(len(self.data.class_names)))
        return TrainedModel(
            network=self.network,
            variables=variables,
            class_names=self.data.class_names,
            unlabelled_classes=all_classes if is_unsupervised else self.unlabelled_classes,
            name=f"{self.config.objective.name}, {self.data_name}",
            trained_on=f"{self.data.train_examples:,} "
            + CONTENTS.get(self.config.dataset, "images"),
            seed=self.config.seed,
            metrics=self.evaluation(),
            style_controls=self._style_controls(variables),
        )

    @property
    def data_name(self) -> str:
        """Name of the dataset, without its path."""
        name = self.config.dataset
        if name == "folder":
            return "image folder"
        return Path(name).stem if name.endswith(".npz") else name

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Adam, with optax's defaults, which are PyTorch's."""
        return optax.adam(self.config.learning_rate)

    @property
    def steps_per_epoch(self) -> int:
        """Number of full batches in an epoch."""
        return self.data.train_examples // self.config.batch_size

    @property
    def total_steps(self) -> int:
        """Number of training steps."""
        return self.config.epochs * self.steps_per_epoch

    @property
    def metrics_path(self) -> Path:
        """Path of metrics.jsonl, one line for each epoch."""
        return self.workdir / "metrics.jsonl"

    @property
    def checkpoints_path(self) -> Path:
        """Folder of the checkpoints."""
        return self.workdir / "checkpoints"

    @property
    def unlabelled_classes(self) -> tuple[int, ...]:
        """Indices of the classes of which training sees no label."""
        if not self.config.objective.uses_labels:
            return tuple(range(len(self.data.class_names)))
        return tuple(label for label, count in enumerate(self.data.labels_per_class) if count == 0)

    @property
    def unsupervised_epochs(self) -> int:
        """Number of epochs at the start in which no label is used: that of the objective, or 0 if
        all training images or none are labelled.
        """
        is_part = any(self.data.labels_per_class) and not self.all_labelled
        return getattr(self.config.objective, "unsupervised_epochs", 0) if is_part else 0

    @property
    def all_labelled(self) -> bool:
        """Whether every training image has a label, other than a pseudo-label."""
        return sum(self.data.labels_per_class) == self.data.train_examples

    @property
    def needs_pseudo_labels(self) -> bool:
        """Whether ``pseudo_labels_from`` or ``label_propagation`` adds labels to those given."""
        config = self.config
        is_set = config.pseudo_labels_from is not None or config.label_propagation
        return is_set and not self.all_labelled

    def check_data(self, dataset: Dataset) -> None:
        """Raises ValueError unless the run was trained on this dataset."""
        info = DatasetInfo.from_dataset(training_view(self.config, dataset))
        if differences := _differences(asdict(self.data), asdict(info)):
            raise ValueError(f"{self.workdir} was trained on other data: {'; '.join(differences)}")

    def environment_differences(self, devices: Devices) -> list[str]:
        """Returns in what the environment differs from the one in which the run was started.

        Args:
            devices: devices on which the run is continued.
        """
        return _differences(
            numeric_environment(self.environment), numeric_environment(environment(devices))
        )

    def key(self, purpose: str) -> Array:
        """Returns the run's random key for a purpose: init, train, test, samples, order or
        neighbours.
        """
        return purpose_key(self.config.seed, purpose)

    def evaluation(self, filename: str = "evaluation.json") -> dict[str, Any]:
        """Returns the metrics in evaluation.json; empty if the run wasn't evaluated."""
        path = self.workdir / filename
        try:
            return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
        except (OSError, TypeError, ValueError):
            return {}

    def fit_style_controls(
        self, model: TrainedModel, dataset: Dataset, *, save: bool = True
    ) -> TrainedModel:
        """Fits the style controls of the run's model to its training data.

        Args:
            model: model of the run.
            dataset: dataset on which it was trained.
            save: whether to write them to the run's folder.

        Raises:
            ValueError: if the model has no classes, its images aren't grey, or the data are others.
        """
        self.check_data(dataset)
        model = model.fit_style_controls(dataset)
        if save:
            write_style_controls(self.workdir, model)
        return model

    def _style_controls(self, variables: Variables) -> StyleControls | None:
        """Returns the saved style controls; None if there are none, or of other weights."""
        path = self.workdir / STYLE_CONTROLS
        if not path.is_file():
            return None
        try:
            by_digest = dict(json.loads(path.read_text(encoding="utf-8")))
            values = by_digest.get(array_digest(jax.tree.leaves(variables)))
            return None if values is None else StyleControls.from_json(values)
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else error
            raise ValueError(f"{path} is invalid: {reason}; remove it") from error

    def initial_state(self) -> TrainState:
        """Returns the state before the first step."""
        state = init_state(self.network, self.optimizer, self.key("init"))
        return self._with_multipliers(state)

    def state_shape(self) -> TrainState:
        """Returns the tree of shapes and dtypes of the run's states."""
        state = state_shape(self.network, self.optimizer)
        return jax.eval_shape(self._with_multipliers, state)

    def _with_multipliers(self, state: TrainState) -> TrainState:
        multipliers = self.config.objective.initial_multipliers()
        return state._replace(multipliers=multipliers or None)

    def load_state(self, checkpoint: str = "latest") -> TrainState:
        """Loads the state of a checkpoint.

        Args:
            checkpoint: "latest" or "best" (lowest negative ELBO on the test split).

        Raises:
            ValueError: if ``checkpoint`` is neither.
            CheckpointError: if there is no checkpoint yet, the latest one is damaged, or none can
                be read.
        """
        if checkpoint not in ("latest", "best"):
            raise ValueError(f"checkpoint must be latest or best, got {checkpoint!r}")
        if (self.workdir / WEIGHTS).is_file():
            raise checkpoints.CheckpointError(
                f"{self.workdir} contains an exported model, which has no checkpoints"
            )
        is_best = checkpoint == "best"
        restore = checkpoints.restore_best if is_best else checkpoints.restore_latest
        state, damaged = restore(self.checkpoints_path, self.state_shape())
        if state is None:
            raise checkpoints.CheckpointError(f"{self.workdir} has no checkpoint yet")
        for step, reason in damaged.items():
            if is_best:
                logger.warning(
                    "the checkpoint of step %d in %s is damaged (%s); this is the best of the "
                    "others",
                    step,
                    self.workdir,
                    reason,
                )
                continue
            raise checkpoints.CheckpointError(
                f"the checkpoint of step {step} in {self.workdir} is damaged ({reason}); training "
                f"again resumes from step {int(state.step)}"
            )
        return state

    def _exported_weights(self) -> Variables:
        path = self.workdir / WEIGHTS
        arrays = load_arrays(path)
        expected = flatten_dict(self.state_shape().average, sep="/")
        for name in sorted(expected.keys() | arrays.keys()):
            found, required = _describe(arrays.get(name)), _describe(expected.get(name))
            if found != required:
                raise ValueError(f"{path}: {name} is {found}, but config.json requires {required}")
        return jax.device_put(unflatten_dict(arrays, sep="/"))

    def load_dataset(self, data_dir: str | None = None) -> Dataset:
        """Loads the run's dataset; see :func:`jvae_jax.data.load`.

        Args:
            data_dir: directory of the data; by default the one used for training.
        """
        return data.load(
            self.config.dataset,
            data_dir or self.config.data_dir,
            image_size=self.config.image_size,
            binarize=self.config.binarize,
        )


def write_style_controls(folder: Path, model: TrainedModel) -> None:
    """Writes the style controls of a model, if it has them, beside those of other checkpoints."""
    if model.style_controls is not None:
        path = folder / STYLE_CONTROLS
        others = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        digest = array_digest(jax.tree.leaves(model.variables))
        contents = {**others, digest: model.style_controls.to_json()}
        write_json(path, contents, indent=None)  # thousands of numbers


def _describe(array: Any) -> str:
    return "missing" if array is None else f"{array.dtype} of shape {tuple(array.shape)}"


def training_view(config: TrainConfig, dataset: Dataset) -> Dataset:
    """Keeps ``num_labels`` training labels; the rest become -1.

    Raises:
        ValueError: if there are fewer labels.
    """
    if isinstance(config.num_labels, str):
        return dataset
    return dataset.with_labels(config.num_labels, config.seed)


def plan_run(config: TrainConfig, dataset: Dataset) -> Run:
    """Returns a run without creating its folder.

    Args:
        config: configuration resolved for the dataset.
        dataset: dataset to train on.
    """
    if config.workdir is None:
        raise ValueError("config must be resolved first: TrainConfig.resolve(dataset)")
    workdir = Path(config.workdir).expanduser()
    try:
        str(workdir.absolute()).encode()
    except UnicodeEncodeError as error:  # Orbax would fail to save the first checkpoint
        raise ValueError(f"workdir {workdir} isn't UTF-8; choose another --workdir") from error
    info = DatasetInfo.from_dataset(training_view(config, dataset))
    return Run(workdir=workdir, config=config, data=info)


def check_folder(run: Run) -> None:
    """Checks that the run's folder is missing, empty, or that of the same run with at most as many
    epochs.

    Raises:
        ValueError: if it contains something else.
        OSError: if its path, or a file in it, is a link or a special file that training would use.
    """
    started = started_run(run)
    workdir = run.workdir
    if (workdir / WEIGHTS).exists():
        raise ValueError(f"{workdir} contains an exported model; choose another --workdir")
    if started is not None:
        _check_same(started, run)
    elif workdir.exists() and (not workdir.is_dir() or any(workdir.glob("[!.]*"))):
        raise ValueError(f"{workdir} contains something that isn't a run; choose another --workdir")


@contextmanager
def lock_folder(workdir: Path) -> Iterator[None]:
    """Creates a run's folder and excludes other processes, and threads, that train in it.

    The system releases the lock when the process ends, however it ends.

    Raises:
        RuntimeError: if the folder is locked.
        OSError: if it can't be written.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    with ExitStack() as closing:
        try:
            closing.enter_context(lock_file(workdir / ".lock", wait=False))
        except TimeoutError as error:
            raise RuntimeError(
                f"another process is training in {workdir}; wait until it ends, or choose another "
                "--workdir"
            ) from error
        yield


def open_run(config: TrainConfig, dataset: Dataset, devices: Devices | None = None) -> Run:
    """Creates the folder of a run, or opens it to resume it, for more epochs if the configuration
    has more.

    Args:
        config: configuration resolved for the dataset.
        dataset: dataset to train on.
        devices: devices to train on; default: all devices of all processes.

    Raises:
        ValueError: if the folder contains something else, or a run of another configuration or
            dataset.
        OSError: if it can't be written.
    """
    run = plan_run(config, dataset)
    check_folder(run)
    started = started_run(run)
    run = replace(run, environment=environment(devices) if started is None else started.environment)
    epochs = 0 if started is None else started.config.epochs
    if config.epochs > epochs:
        if epochs:
            logger.info("%s grows from %d to %d epochs", run.workdir, epochs, config.epochs)
        run.workdir.mkdir(parents=True, exist_ok=True)
        contents = {
            "format": FORMAT,
            "config": config.to_json(),
            "data": asdict(run.data),
            "environment": run.environment,
        }
        write_json(run.workdir / "config.json", contents)
    return run


def started_run(run: Run) -> Run | None:
    """Returns the run that is in the folder of a planned run, if any.

    Raises:
        ValueError: if its config.json is invalid.
        OSError: as by :func:`check_folder`.
    """
    workdir = _check_workdir(run.workdir)
    _check_entries(workdir)
    return load_run(workdir) if (workdir / "config.json").exists() else None


def load_run(workdir: str | Path) -> Run:
    """Opens the folder of a run or of an exported model.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if its config.json is invalid, has another format, or describes a model that
            exceeds the machine's memory.
    """
    workdir = _check_workdir(Path(workdir).expanduser())
    path = workdir / "config.json"
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a file")
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
        found = contents.get("format", 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"{workdir} is not a run: it has no config.json") from error
    except (AttributeError, ValueError) as error:
        raise ValueError(f"{path} is invalid: {error}") from error
    if found != FORMAT:
        raise ValueError(
            f"{path} has format {found}, but this version of jvae_jax reads format {FORMAT}; train "
            "again, or use the version of jvae_jax that wrote it"
        )
    try:
        config = TrainConfig.from_json(contents["config"])
        info = DatasetInfo.from_json(contents["data"])
        started_in = dict(contents.get("environment") or {})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is invalid: {error}") from error
    run = Run(workdir=workdir, config=config, data=info, environment=started_in)
    require_memory(parameter_bytes(run.network), f"the model in {path}")
    return run


def load_source(path: str | Path) -> Run:
    """Opens a packaged model, a model on the Hugging Face Hub, a run or an exported model.

    Args:
        path: name, address or folder; see :func:`load`.

    Raises:
        FileNotFoundError: if there is no model.
        ValueError: if its config.json is invalid; see :func:`load_run`.
        ModuleNotFoundError, ConnectionError: see :func:`jvae_jax.hub.download`.
    """
    if is_hub_address(path):
        return load_run(download(str(path)))
    packaged = packaged_models()
    try:
        return load_run(packaged.get(path, path) if isinstance(path, str) else path)
    except FileNotFoundError as error:
        names = ", ".join(packaged) or "none"
        raise FileNotFoundError(f"{error}; packaged models: {names}") from error


def load(path: str | Path, *, checkpoint: str = "latest") -> TrainedModel:
    """Loads a trained model.

    Args:
        path: name of a packaged model, as ``jvae models`` lists them, ``hf://owner/name`` of one on
            the Hugging Face Hub, or folder of a run or of a model exported by ``jvae export``. A
            folder that has the name of a packaged model is given as ``./digits`` or as a ``Path``.
        checkpoint: checkpoint of a run: "latest" or "best" (lowest negative ELBO on the test
            split); other models have only one.

    Raises:
        FileNotFoundError: if there is no model.
        ValueError: if a file is invalid or has another format.
        CheckpointError: if a run has no checkpoint yet, or none that can be read.
        ModuleNotFoundError, ConnectionError: see :func:`jvae_jax.hub.download`.
    """
    return load_source(path).load_model(checkpoint)


def dataset_name(config: TrainConfig) -> str:
    """Resolves ``auto`` to the dataset of the run that is resumed, if any."""
    if config.dataset == "auto" and config.workdir is not None:
        workdir = _check_workdir(Path(config.workdir).expanduser())
        if (workdir / "config.json").exists():
            return load_run(workdir).config.dataset
    return config.dataset


def _check_workdir(workdir: Path) -> Path:
    """Returns the path of a run's folder, which may be missing.

    Raises:
        ValueError: if no path can be like this.
        OSError: if it can't be looked up: a dangling link, a loop of links, or a file on the way.
    """
    try:
        workdir.stat()
    except FileNotFoundError as error:
        for path in (workdir, *workdir.parents):
            if path.is_symlink() and not path.exists():
                raise FileNotFoundError(
                    f"{path} is a symbolic link to {path.readlink()}, which doesn't exist; create "
                    "that folder or choose another --workdir"
                ) from error
    except (OSError, ValueError) as error:  # a loop of links, a file on the way, length, NUL
        is_os_error = isinstance(error, OSError)
        reason = error.strerror if is_os_error else error
        message = f"{str(workdir)[:200]!r} can't be the folder of a run: {reason}"
        raise (OSError if is_os_error else ValueError)(message) from error
    return workdir


def _check_entries(workdir: Path) -> None:
    """Raises FileExistsError where training would write through a link or into a special file."""
    for name in _WRITTEN_FILES:
        check_regular_file(workdir / name)
    for name in _WRITTEN_FOLDERS:
        path = workdir / name
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            kind = "a symbolic link" if path.is_symlink() else "not a folder"
            raise FileExistsError(f"{path} is {kind}; remove it, or choose another --workdir")


def _check_same(existing: Run, requested: Run) -> None:
    there, here = settings(existing.config), settings(requested.config)
    if here["epochs"] > there["epochs"]:  # it is trained for longer
        there["epochs"] = here["epochs"]
    if (there["epochs"], there["batch_size"]) != (here["epochs"], here["batch_size"]):
        for name in _SET_BY_EPOCHS:
            there.pop(name, None)
    if differences := _differences(there, here):
        raise ValueError(
            f"{existing.workdir} contains another run: {'; '.join(differences)}. Resume with its "
            "settings, or choose another --workdir"
        )
    if differences := _differences(asdict(existing.data), asdict(requested.data)):
        raise ValueError(
            f"{existing.workdir} was trained on other data: {'; '.join(differences)}. Resume with "
            "those data, or choose another --workdir"
        )


def settings(config: TrainConfig) -> dict[str, Any]:
    """Settings that must not change during a run, by flag name, those of the objective last."""
    values = config.to_json()
    hyperparameters = values.pop("objective")
    named = {"objective": hyperparameters.pop("name"), **values, **hyperparameters}
    return {name: value for name, value in named.items() if name not in _IGNORED_ON_RESUME}


def _differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    return [
        f"{name} is {there[name]!r} there and {here[name]!r} here"
        for name in there
        if name in here and there[name] != here[name]
    ]

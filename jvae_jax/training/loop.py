"""A complete training run: from a configuration to a folder with a trained, evaluated model."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jvae_jax.data import Dataset
from jvae_jax.data.neighbours import mutual_neighbours, nearest_images
from jvae_jax.evaluation.classifier import EvalClassifier
from jvae_jax.evaluation.metrics import Evaluation, match_categories, mean_test_terms
from jvae_jax.files import atomic_write, write_json
from jvae_jax.generation.characters import encode
from jvae_jax.models.inference import in_chunks
from jvae_jax.numerics import default_numerics
from jvae_jax.objectives import CVAE, Ours
from jvae_jax.trained_model import TrainedModel, category_names
from jvae_jax.training import checkpoints, distributed, feeding, parallel
from jvae_jax.training.batching import (
    balanced_order,
    epoch_order,
    mixed_order,
    random_neighbours,
)
from jvae_jax.training.config import TrainConfig
from jvae_jax.training.distributed import StopRequest, stop_on_signals
from jvae_jax.training.provenance import environment, numeric_environment
from jvae_jax.training.pseudo_labels import (
    PROPAGATION_NEIGHBOURS,
    most_probable_categories,
    propagated_labels,
    propagation_errors,
    pseudo_labels,
)
from jvae_jax.training.run import (
    DEFAULT_BY_LENGTH,
    Run,
    check_folder,
    load_run,
    load_source,
    lock_folder,
    open_run,
    plan_run,
    settings,
    started_run,
    training_view,
)
from jvae_jax.training.run_writer import RunWriter
from jvae_jax.training.step import TrainState, metric_names
from jvae_jax.training.transfer import permute_categories, transfer_variables
from jvae_jax.types import Batch, Devices, LabelInfo, Variables

logger = logging.getLogger(__name__)

_NOT_STARTED = -1
"""Value of a setting of a run that isn't there yet."""
_MATCHED_AT_A_TIME = 10_000
"""Images on the device while values of c are matched to labels."""
_ELBO_TERMS = ("reconstruction", "kl_z", "kl_c")
"""Terms of the negative ELBO."""


class DivergedError(ArithmeticError):
    """A term of the loss, or the norm of the gradient, is not finite."""


@default_numerics()
def fit(
    config: TrainConfig,
    dataset: Dataset,
    *,
    devices: Devices | None = None,
    on_samples: Callable[[Path], None] | None = None,
) -> Run:
    """Trains a model, or resumes its training, and evaluates it.

    A run that is interrupted at any moment and resumed by the same call ends with the same
    parameters, optimizer state and metrics, bit for bit, as one that was not. With more epochs, the
    call trains an existing run for longer; capacities then rise over as many steps as before, and
    as many epochs use no label. After
    SIGINT or SIGTERM the steps in flight are finished and saved first; a second signal ends the
    process at once. JAX's options for random bits, types and promotion are fixed, see
    :func:`jvae_jax.numerics.default_numerics`.

    Until it returns, no other process or thread can train in the same folder.

    With several processes (:mod:`jvae_jax.training.distributed`), all must make the same call
    with the same data, which is checked; only the first one reads and writes the run's folder, and
    evaluates. Messages are logged to the ``jvae_jax`` logger.

    Args:
        config: configuration; fields that are None are resolved from the dataset.
        dataset: dataset to train on.
        devices: devices to train on; default: all devices of all processes.
        on_samples: called with the path of samples.png whenever it is rewritten.

    Returns:
        The finished run. In the first process, ``fit(...).model`` is the trained model.

    Raises:
        ValueError: if the folder contains something else or a run of another configuration, the
            batch size doesn't suit the data or the devices, ``init_from`` has another network,
            ``pseudo_labels_from`` or ``label_propagation`` can't label the images, or the processes
            differ.
        FileNotFoundError: if ``init_from`` or ``pseudo_labels_from`` is no model.
        CheckpointError: if checkpoints exist but none can be read, or one can't be written.
        ModuleNotFoundError, ConnectionError: if one of these can't be downloaded, see
            :func:`jvae_jax.hub.download`.
        DivergedError: if a metric is not finite; the last checkpoint, if any, precedes it.
        OSError: if the folder can't be written.
        RuntimeError: if another process or thread is training in the folder, or another of the
            processes that train together failed.
    """
    if not isinstance(config, TrainConfig) or not isinstance(dataset, Dataset):
        raise ValueError(
            "fit needs a TrainConfig and a Dataset, got "
            f"{type(config).__name__} and {type(dataset).__name__}"
        )
    devices = jax.devices() if devices is None else devices
    is_first = distributed.is_first()
    with distributed.fail_together():
        parallel.check_batch(config.batch_size, len(dataset.train_labels), len(devices))
        run = plan_run(config.resolve(dataset), dataset)
        started = _started_settings(run, config) if is_first else {}
    run = _with_settings(
        run,
        {name: distributed.maximum(started.get(name, _NOT_STARTED)) for name in DEFAULT_BY_LENGTH},
    )
    training_data = training_view(run.config, dataset)
    distributed.check_equal(_shared_settings(config, run, devices))
    with ExitStack() as closing:
        with distributed.fail_together():
            if is_first:
                run, state = _open(run, dataset, devices, closing)
            else:
                state = run.initial_state()
            evaluated_step = run.evaluation().get("step", -1) if is_first else -1
        state, evaluated_step = distributed.broadcast_from_first((state, evaluated_step))
        if int(state.step) == run.total_steps == evaluated_step:
            if is_first:
                logger.info(
                    "%s is finished: all %d steps are done and evaluated",
                    run.workdir,
                    run.total_steps,
                )
            return run
        if run.needs_pseudo_labels and state.step < run.total_steps:
            training_data = _with_pseudo_labels(run, training_data, int(state.step))
        label_info = run.config.label_info(training_data)
        if is_first:
            _log_summary(run, training_data, label_info, devices)
        state = _train(run, training_data, state, devices, on_samples)
        with distributed.fail_together():
            if is_first:
                logger.info("evaluating on %d test images", run.data.test_examples)
                evaluate_run(run, dataset, state.average, step=int(state.step))
    return run


def evaluate_run(
    run: Run,
    dataset: Dataset,
    variables: Variables,
    *,
    step: int,
    filename: str = "evaluation.json",
    eval_classifier: EvalClassifier | None = None,
    extra_metrics: Evaluation | None = None,
    keep_others: bool = False,
) -> Evaluation:
    """Evaluates a run on the test split and writes the metrics to its folder.

    This needs no lock on the folder, so that a run can be evaluated while it trains: checkpoints
    are only read, and the file of the metrics is replaced as a whole.

    Args:
        run: the run.
        dataset: dataset on which it was trained.
        variables: moving average of the trained variables.
        step: training step of the variables.
        filename: file of the metrics.
        eval_classifier: classifier of the same data; see :meth:`TrainedModel.evaluate`.
        extra_metrics: other metrics of the same variables, to write along.
        keep_others: keep the metrics in the file that this evaluation lacks, such as those that
            need a classifier, if they are of the same step.

    Returns:
        The metrics, with the step and the environment.

    Raises:
        ValueError: if the run was trained on other data.
    """
    run.check_data(dataset)
    metrics = run.make_model(variables, step=step).evaluate(dataset, eval_classifier)
    evaluation = {"step": step, **metrics, **(extra_metrics or {}), "environment": environment()}
    previous = run.evaluation(filename)
    kept = {name: value for name, value in previous.items() if name not in evaluation}
    if keep_others and kept and previous.get("step") == step:
        logger.info("kept from an earlier evaluation of this step: %s", ", ".join(kept))
        evaluation |= kept
    write_json(run.workdir / filename, evaluation)
    return evaluation


def _log_summary(run: Run, dataset: Dataset, label_info: LabelInfo, devices: Devices) -> None:
    """Logs what is trained, on which devices, and settings that may be unexpected.

    Args:
        run: the run.
        dataset: the dataset as training sees it.
        label_info: properties of its labels.
        devices: the devices of all processes.
    """
    objective = run.config.objective
    processes = jax.process_count()
    of_processes = f" of {processes} processes" if processes > 1 else ""
    logger.info(
        "%s: %d steps (epochs: %d, steps per epoch: %d) on %d x %s%s, in %s",
        objective.name,
        run.total_steps,
        run.config.epochs,
        run.steps_per_epoch,
        len(devices),
        devices[0].device_kind,
        of_processes,
        run.workdir,
    )
    if differences := run.environment_differences(devices):
        logger.warning(
            "this environment isn't the one in which the run was started (%s), so the result may "
            "not equal that of an uninterrupted run bit for bit",
            "; ".join(differences),
        )
    capacity_steps = getattr(objective, "capacity_steps", None)
    if capacity_steps == 0:
        logger.info("capacities are at their final values from the first step")
    elif capacity_steps is not None:
        logger.info("capacities increase from 0 over %d steps", capacity_steps)
    if objective.uses_labels and (dataset.train_labels < 0).any():
        _log_labels(run, dataset)
    classes = len(dataset.class_names)
    for name, value in _settings_without_effect(run, dataset, label_info).items():
        shown = f"{value:g}" if isinstance(value, float) else value
        logger.warning("%s of %s has no effect with these labels", name, shown)
    if run.config.fixed_latents == run.config.latents:
        logger.warning("all %d latents are fixed at 0, so z holds nothing", run.config.latents)
    final = objective.final_unlabelled_capacity_c(label_info)
    if final > math.log(classes):
        logger.warning(
            "C_c is capped at log %d = %.3f nats, the most that %d classes can hold, below the "
            "configured %g",
            classes,
            math.log(classes),
            classes,
            final,
        )
    names = category_names(dataset.class_names, run.unlabelled_classes)
    if run.network.classes and not "".join(names).isascii():
        from jvae_jax import plotting

        if hint := plotting.font_hint(names):
            logger.warning("%s", hint)


def _settings_without_effect(run: Run, dataset: Dataset, label_info: LabelInfo) -> dict[str, Any]:
    """Returns the settings that differ from their defaults but matter for other labels only."""
    config, objective, unused = run.config, run.config.objective, {}
    if config.labelled_per_batch(dataset.train_labels) is None:
        unused["labelled_batch_fraction"] = config, TrainConfig
    if run.all_labelled:
        unused["pseudo_labels_from"] = config, TrainConfig
        unused["label_propagation"] = config, TrainConfig
    if isinstance(objective, Ours) and label_info.all_labelled:
        unused["unlabelled_capacity_c"] = objective, Ours
    if isinstance(objective, (CVAE, Ours)):
        if label_info.all_labelled and not run.unsupervised_epochs:
            unused["neighbours"] = objective, type(objective)
        if run.all_labelled:
            unused["unsupervised_epochs"] = objective, type(objective)
    return {
        name: getattr(values, name)
        for name, (values, defaults) in unused.items()
        if getattr(values, name) != getattr(defaults, name)
    }


def _log_labels(run: Run, dataset: Dataset) -> None:
    counts, config = run.data.labels_per_class, run.config
    if not any(counts):
        logger.warning("no training image is labelled, so c is unsupervised")
        return
    per_batch = config.labelled_per_batch(dataset.train_labels)
    in_batch = "" if per_batch is None else f", {per_batch} of {config.batch_size} in each batch"
    fewest, most = min(counts), max(counts)
    per_class = f"{most} per class" if fewest == most else f"{fewest} to {most} per class"
    logger.info(
        "%d of %d training images are labelled, %s%s",
        sum(counts),
        run.data.train_examples,
        per_class,
        in_batch,
    )
    if run.unsupervised_epochs:
        logger.info("labels are used from epoch %d on", run.unsupervised_epochs + 1)
    if unlabelled := [run.data.class_names[index] for index in run.unlabelled_classes]:
        logger.warning(
            "no training image of these classes is labelled, so c is unsupervised for them: %s",
            ", ".join(unlabelled),
        )


def _shared_settings(config: TrainConfig, run: Run, devices: Devices) -> dict[str, Any]:
    """Returns what must be the same in all processes, by name.

    Args:
        config: configuration before it was resolved, so that no consequence of a difference is
            named beside it.
        run: the planned run.
        devices: the devices of all processes.
    """
    numerics = numeric_environment(environment(devices))
    numerics.pop("machine", None)  # hosts may have different processors
    return {
        **settings(config),
        "parallel": config.parallel,
        "data_on": config.data_on,
        "dataset": run.config.dataset,
        "data with fingerprint": run.data.fingerprint,
        "device ids": [device.id for device in devices],
        **numerics,
    }


def _started_settings(run: Run, config: TrainConfig) -> dict[str, int]:
    """Returns the settings ``DEFAULT_BY_LENGTH`` with which the run in the folder was started.

    Args:
        run: the planned run, in which these follow from its number of epochs.
        config: configuration before it was resolved.

    Returns:
        Those that the configuration leaves open; none unless the folder contains a run of the same
        objective with as many epochs or fewer.
    """
    started, objective = started_run(run), config.objective
    if started is None or started.config.epochs > run.config.epochs:
        return {}
    if started.config.objective.name != objective.name:
        return {}
    return {
        name: getattr(started.config.objective, name)
        for name, default in DEFAULT_BY_LENGTH.items()
        if getattr(run.config.objective, name, None) is not None
        and getattr(objective, name) == default
    }


def _with_settings(run: Run, values: Mapping[str, int]) -> Run:
    """Replaces settings of the run's objective, but for those that are ``_NOT_STARTED``."""
    objective = run.config.objective
    kept = {
        name: value
        for name, value in values.items()
        if value != _NOT_STARTED and getattr(objective, name) != value
    }
    for name, value in kept.items():
        logger.warning(
            "%s is %d, as when the run was started, where %d epochs would have %d; for that, "
            "choose another --workdir",
            name,
            value,
            run.config.epochs,
            getattr(objective, name),
        )
    changes: dict[str, Any] = kept
    return replace(run, config=replace(run.config, objective=replace(objective, **changes)))


def _open(
    run: Run, dataset: Dataset, devices: Devices, closing: ExitStack
) -> tuple[Run, TrainState]:
    """Opens the run's folder, locked until ``closing`` is closed, and restores its state.

    A finished run is only read, so its folder isn't locked and may be read-only.
    """
    check_folder(run)
    if run.evaluation().get("step") == run.total_steps:
        state, _ = checkpoints.restore_latest(run.checkpoints_path, run.state_shape())
        if state is not None and int(state.step) == run.total_steps:
            return load_run(run.workdir), state
    initial = None
    if started_run(run) is None:  # Before the folder is created, since these may fail.
        initial = _initial_state(run)
        if run.needs_pseudo_labels:
            _check_labelled_classes(run)
            if not run.config.label_propagation:
                _labelling_model(run)
    closing.enter_context(lock_folder(run.workdir))
    # Again: another process may have trained in it before it was locked.
    check_folder(run)
    # Before the run's configuration is changed, since it may fail.
    state = _restored_state(run) or initial or _initial_state(run)
    return open_run(run.config, dataset, devices), state


def _initial_state(run: Run) -> TrainState:
    """Returns the state before the first step, with the weights of ``init_from`` if it is given."""
    state = run.initial_state()
    if run.config.init_from is None:
        return state
    source = load_source(run.config.init_from)
    model = source.model
    known = {name: index for index, name in enumerate(model.category_names)}
    names = category_names(run.data.class_names, run.unlabelled_classes)
    classes = [known.get(name) for name in names if run.network.classes]
    try:
        variables = transfer_variables(
            run.network, state.variables, model.network, model.variables, classes
        )
    except ValueError as error:
        config = source.config
        flags = [f"--objective={config.objective.name}", *config.objective.flags()]
        flags = [flag for flag in flags if flag[2:].split("=")[0] not in DEFAULT_BY_LENGTH]
        sizes = ("latents", "fixed_latents", "depth", "image_size")
        flags += [f"--{name}={getattr(config, name)}" for name in sizes]
        raise ValueError(
            f"init_from {run.config.init_from} has another network ({error}); use its settings: "
            f"{' '.join(flags)}"
        ) from error
    logger.info(
        "starting from the weights of %s, which has %d of %d classes",
        run.config.init_from,
        sum(index is not None for index in classes),
        len(classes),
    )
    return state._replace(variables=variables, average=jax.tree.map(jnp.copy, variables))


def _restored_state(run: Run) -> TrainState | None:
    """Returns the state of the latest intact checkpoint, if there is any."""
    folder = run.checkpoints_path
    state, damaged = checkpoints.restore_latest(folder, run.state_shape())
    for step, reason in damaged.items():
        logger.warning("the checkpoint of step %d is damaged (%s)", step, reason)
    if damaged:
        logger.warning("moved to %s", checkpoints.set_aside(folder, damaged))
    if state is not None:
        logger.info("resuming from step %d of %d in %s", state.step, run.total_steps, run.workdir)
    return state


def _train(
    run: Run,
    dataset: Dataset,
    state: TrainState,
    devices: Devices,
    on_samples: Callable[[Path], None] | None,
) -> TrainState:
    """Trains from a saved state to the end of the run, or until a signal asks to stop."""
    save_every = run.config.save_every or 1
    steps_per_epoch = run.steps_per_epoch
    step = int(state.step)
    neighbours = _neighbours_of_images(run, dataset)
    trainer = _Trainer(run, neighbours, devices)
    unlabelled = _without_labels(dataset) if run.unsupervised_epochs else dataset
    first_epoch = step // steps_per_epoch + 1
    # Only the first process writes, so it alone can fail in these blocks.
    with distributed.fail_together():
        writer = RunWriter(run, step, on_samples)
    with stop_on_signals() as stop, writer:
        sums = writer.metric_sums
        for epoch in range(first_epoch, run.config.epochs + 1):
            is_unsupervised = epoch <= run.unsupervised_epochs
            view = unlabelled if is_unsupervised else dataset
            label_info = run.config.label_info(view)
            if epoch in (first_epoch, run.unsupervised_epochs + 1):
                trainer.set_data(view, label_info)
            if run.unsupervised_epochs and step == run.unsupervised_epochs * steps_per_epoch:
                state = _matched_to_labels(run, dataset, neighbours, state)
            state, sums = trainer.train_epoch(state, epoch, sums, writer, stop)
            step = int(state.step)
            if step < epoch * steps_per_epoch:
                with distributed.fail_together():
                    writer.save_checkpoint(state, negative_elbo=math.inf, metric_sums=sums)
                    writer.write_curves()
                    writer.wait()
                stop.exit()
            train_terms = {name: total / steps_per_epoch for name, total in sums.items()}
            sums = {}
            variables = jax.device_get(state.average)
            test_terms = mean_test_terms(
                run.config.objective,
                run.network,
                variables,
                step,
                view.test_split,
                run.key("test"),
                label_info,
            )
            _check_test_terms(run, epoch, test_terms)
            with distributed.fail_together():
                writer.write_epoch(epoch, step, train_terms, test_terms)
            is_last = epoch == run.config.epochs
            if stop.synchronize() or is_last or epoch % save_every == 0:
                # The negative ELBO of other epochs has the label's prior of c.
                negative_elbo = (
                    math.inf
                    if is_unsupervised
                    else sum(test_terms.get(name, 0.0) for name in _ELBO_TERMS)
                )
                # Before the checkpoint: an epoch with a checkpoint isn't trained again, so its
                # samples wouldn't be rewritten.
                with distributed.fail_together():
                    writer.write_samples(step, variables)
                    writer.save_checkpoint(state, negative_elbo=negative_elbo, metric_sums=sums)
                    if stop or is_last:
                        writer.write_curves()
                        writer.wait()
            if stop:
                stop.exit()
    return state


def _check_test_terms(run: Run, epoch: int, terms: Mapping[str, float]) -> None:
    nonfinite = [name for name, mean in terms.items() if not math.isfinite(mean)]
    if nonfinite:
        raise DivergedError(
            f"not finite on the test split after epoch {epoch}: {', '.join(nonfinite)}. "
            f"{_advice(run)}"
        )


def _advice(run: Run) -> str:
    """Returns what to do after a divergence."""
    return (
        f"{run.checkpoints_path} has the last finite state, if any was saved; try a lower "
        "--learning_rate or a larger --batch_size in another --workdir"
    )


def _neighbours_of_images(run: Run, dataset: Dataset) -> np.ndarray | None:
    """Returns the neighbours of each training image, if the objective uses any."""
    objective = run.config.objective
    is_labelled = objective.uses_labels and dataset.all_labelled and not run.unsupervised_epochs
    if not objective.neighbour_count() or is_labelled:
        return None
    images, count = dataset.train_images, objective.neighbour_count()

    def find() -> np.ndarray:
        logger.info("finding the %d nearest of %d training images", count, len(images))
        return mutual_neighbours(nearest_images(images, count))

    return _kept_by_first(run.workdir / "neighbours.npy", (len(images), count), find)


def _kept_by_first(
    path: Path, shape: tuple[int, ...], compute: Callable[[], np.ndarray]
) -> np.ndarray:
    """Returns the indices that a file in the run's folder keeps, or computes and keeps them.

    Kept because they may be others later: equal values are ordered differently by other numbers of
    threads, and a model that gives labels may change. Only the first process reads, computes and
    writes.

    Args:
        path: path of the file.
        shape: shape of the indices.
        compute: returns them, int32.
    """
    indices = np.zeros(shape, np.int32)
    with distributed.fail_together():
        if distributed.is_first():
            indices = _read_indices(path, shape)
            if indices is None:
                indices = compute()
                with atomic_write(path) as file:
                    np.save(file, indices)
    return np.asarray(distributed.broadcast_from_first(indices))


def _read_indices(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """Returns the indices in a file; None if there are none of this shape."""
    with suppress(EOFError, OSError, ValueError):  # EOFError: the file is empty
        kept = np.load(path, allow_pickle=False)
        if kept.shape == shape and kept.dtype == np.int32:
            return kept
    return None


def _with_pseudo_labels(run: Run, dataset: Dataset, step: int) -> Dataset:
    """Adds labels by the model of ``pseudo_labels_from`` or by label propagation.

    Args:
        run: the run.
        dataset: the dataset with the labels that are given.
        step: step from which training goes on.

    Raises:
        ValueError: if labels with which the run was trained so far are lost.
    """
    given, path = dataset.train_labels, run.workdir / "pseudo_labels.npy"

    def find() -> np.ndarray:
        if step > 0:
            raise ValueError(
                f"{path} is missing or damaged, so training can't go on with the same labels; "
                "choose another --workdir"
            )
        if run.config.label_propagation:
            logger.info("finding the nearest of %d training images", len(given))
            count = min(PROPAGATION_NEIGHBOURS, len(given) - 1)
            nearest = nearest_images(dataset.train_images, count)
            wrong, compared = propagation_errors(given, nearest)
            if compared:
                logger.info(
                    "two-fold validation of label propagation: %d of %d labels are wrong",
                    wrong,
                    compared,
                )
            return propagated_labels(given, nearest)
        model, class_of_category = _labelling_model(run)
        categories, odds = in_chunks(
            lambda images: most_probable_categories(np.asarray(model.encode(images).logits)),
            dataset.train_images,
        )
        return pseudo_labels(categories, odds, class_of_category)

    labels = np.where(given >= 0, given, _kept_by_first(path, given.shape, find))
    if distributed.is_first():
        added = np.count_nonzero(labels >= 0) - np.count_nonzero(given >= 0)
        source = run.config.pseudo_labels_from or "label propagation"
        logger.info("%d more images have labels by %s", added, source)
    return replace(dataset, train_labels=labels)


def _check_labelled_classes(run: Run) -> None:
    """Raises ValueError unless training sees a label of each class."""
    if missing := [run.data.class_names[index] for index in run.unlabelled_classes]:
        option = "label_propagation" if run.config.label_propagation else "pseudo_labels_from"
        raise ValueError(
            f"{option} needs a labelled training image of each class; none is of "
            f"{', '.join(missing)}; label one of each, or raise --num_labels"
        )


def _labelling_model(run: Run) -> tuple[TrainedModel, list[int | None]]:
    """Returns the model of ``pseudo_labels_from``, and the run's class of each of its categories.

    Raises:
        ValueError: if the model lacks a class or has other images.
    """
    source, names = str(run.config.pseudo_labels_from), run.data.class_names
    model = load_source(source).model
    if model.network.image_shape != run.data.image_shape:
        raise ValueError(
            f"pseudo_labels_from {source} reads images of {model.network.image_shape}, not of "
            f"{run.data.image_shape}; choose another model or --image_size"
        )
    known = [
        None if category in model.unlabelled_classes else name
        for category, name in enumerate(model.class_names)
    ]
    if missing := [name for name in names if name not in known]:
        raise ValueError(
            f"pseudo_labels_from {source} wasn't trained with labels of {', '.join(missing)}, and "
            "would read these images as others; choose another model"
        )
    return model, [names.index(name) if name in names else None for name in known]


def _without_labels(dataset: Dataset) -> Dataset:
    return replace(
        dataset,
        train_labels=np.full_like(dataset.train_labels, -1),
        test_labels=np.full_like(dataset.test_labels, -1),
    )


def _matched_to_labels(
    run: Run, dataset: Dataset, neighbours: np.ndarray | None, state: TrainState
) -> TrainState:
    """Permutes the values of c so that they agree best with the labels.

    Args:
        run: the run.
        dataset: the dataset as training sees it.
        neighbours: neighbours of each training image, (images, neighbours), to which the label of
            the image is given as well, or None.
        state: state of training without labels.

    Returns:
        The state with permuted values of c.
    """
    labelled = np.flatnonzero(dataset.train_labels >= 0)
    images, labels = labelled, dataset.train_labels[labelled]
    if neighbours is not None:
        images = np.concatenate([labelled, neighbours[labelled].ravel()])
        labels = np.concatenate([labels, labels.repeat(neighbours.shape[1])])
    classes = len(dataset.class_names)
    category_to_class = np.zeros(classes, np.int32)
    variables = jax.device_get(state.average)
    with distributed.fail_together():
        if distributed.is_first():
            logits = [
                np.asarray(encode(run.network, variables, dataset.train_images[chunk]).logits)
                for chunk in np.array_split(images, -(-len(images) // _MATCHED_AT_A_TIME))
            ]
            most_probable = np.argmax(np.concatenate(logits), axis=-1)
            matched = match_categories(most_probable, labels, classes, range(classes))
            category_to_class = matched.astype(np.int32)
            logger.info(
                "matched c to the labels: it agrees with %.1f percent of the %d labelled images%s",
                100 * np.mean(category_to_class[most_probable] == labels),
                len(labelled),
                "" if neighbours is None else " and their neighbours",
            )
    category_to_class = np.asarray(distributed.broadcast_from_first(category_to_class))
    return permute_categories(run.network, run.optimizer, state, np.argsort(category_to_class))


class _Trainer:
    """A run's training data and compiled steps, on its devices."""

    def __init__(self, run: Run, neighbours: np.ndarray | None, devices: Devices) -> None:
        self._run = run
        self._names = metric_names(run.config.objective)
        self._devices = devices
        self._all_neighbours = neighbours
        self._feed: Any = None
        self._dispatches = 0

    def set_data(self, dataset: Dataset, label_info: LabelInfo) -> None:
        """Sets the data to train on; those set before are removed from the devices first."""
        run = self._run
        self._feed = None
        self._feed = feeding.make_feed(
            Batch(dataset.train_images, dataset.train_labels),
            self._devices,
            run.config.data_on,
            run.config.parallel,
            batch_size=run.config.batch_size,
            steps=min(feeding.STEPS_PER_DISPATCH, run.steps_per_epoch),
        )
        self._train_steps = parallel.make_train_steps(
            run.config.objective,
            run.network,
            run.optimizer,
            batch_size=run.config.batch_size,
            label_info=label_info,
            ema_decay=run.config.ema_decay,
            devices=self._devices,
            mapping=run.config.parallel,
        )
        self._labels = dataset.train_labels
        self._labelled_per_batch = run.config.labelled_per_batch(dataset.train_labels)

    def train_epoch(
        self,
        state: TrainState,
        epoch: int,
        sums: Mapping[str, float],
        writer: RunWriter,
        stop: StopRequest,
    ) -> tuple[TrainState, dict[str, float]]:
        """Trains to the end of an epoch, or until all processes agree to stop.

        Args:
            state: state at the beginning of the epoch, or within it.
            epoch: number of the epoch, from 1.
            sums: sums of the metrics of the epoch's steps so far.
            writer: where finished steps are reported.
            stop: checked after each dispatch.

        Returns:
            The state after the last step, and the sums of the metrics of the epoch's steps.

        Raises:
            DivergedError: if a metric is not finite.
            CheckpointError: if a checkpoint can't be written.
        """
        run = self._run
        state = parallel.place(state, self._devices)
        self._feed.start_epoch(self._order(epoch), self._neighbours(epoch))
        sums = dict(sums) or dict.fromkeys(self._names, 0.0)
        end = epoch * run.steps_per_epoch
        step = int(state.step)
        dispatches = self._plan(step, end)
        upcoming = next(dispatches, None)
        while upcoming is not None:
            next_step, examples = upcoming
            with self._profiled():
                state, metrics = self._train_steps(
                    state, *examples, run.key("train"), jnp.int32(next_step)
                )
                upcoming = next(dispatches, None)  # is gathered while the devices train
                metrics = jax.device_get(metrics)
            self._check_finite(metrics.first_nonfinite_step)
            dispatch_sums = {name: float(metrics.sums[name]) for name in self._names}
            sums = {name: sums[name] + dispatch_sums[name] for name in self._names}
            means = {name: total / (next_step - step) for name, total in dispatch_sums.items()}
            with distributed.fail_together():
                writer.steps(next_step, means)
            if stop.synchronize():
                break
            step = next_step
        return state, sums

    def _plan(self, step: int, end: int) -> Iterator[tuple[int, tuple[Batch, Array]]]:
        """Yields the step at which each dispatch stops (exclusive), and its examples."""
        while step < end:
            stop = min(step + feeding.STEPS_PER_DISPATCH, end)
            yield stop, self._feed.load(step, stop)
            step = stop

    def _order(self, epoch: int) -> Array:
        """Returns the order in which the epoch visits the examples."""
        key = self._run.key("order")
        if self._run.config.balance_classes:
            return balanced_order(key, epoch, self._labels)
        if self._labelled_per_batch is None:
            return epoch_order(key, epoch, len(self._labels))
        return mixed_order(
            key,
            epoch,
            np.flatnonzero(self._labels >= 0),
            np.flatnonzero(self._labels < 0),
            batch_size=self._run.config.batch_size,
            labelled_per_batch=self._labelled_per_batch,
        )

    def _neighbours(self, epoch: int) -> np.ndarray | None:
        """Returns a neighbour of each training image for the epoch, if the objective uses any."""
        if self._all_neighbours is None:
            return None
        key = self._run.key("neighbours")
        return np.asarray(random_neighbours(key, epoch, self._all_neighbours))

    @contextmanager
    def _profiled(self) -> Iterator[None]:
        """Traces the second dispatch if the configuration asks for it; the first one compiles."""
        self._dispatches += 1
        if not (self._run.config.profile and self._dispatches == 2):
            yield
            return
        with jax.profiler.trace(self._run.workdir / "profile", create_perfetto_trace=True):
            yield

    def _check_finite(self, first_nonfinite_step: Mapping[str, np.ndarray]) -> None:
        steps = {name: int(first_nonfinite_step[name]) for name in self._names}
        nonfinite = {name: step for name, step in steps.items() if step >= 0}
        if nonfinite:
            first = min(nonfinite.values())
            names = ", ".join(name for name, step in nonfinite.items() if step == first)
            raise DivergedError(f"not finite at step {first}: {names}. {_advice(self._run)}")

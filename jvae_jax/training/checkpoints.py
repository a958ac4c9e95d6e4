"""Checkpoints of a run, by Orbax: the latest two and the best.

Trees are saved from and restored to the host, so the number of devices may change when a run is
resumed. Reading never changes a folder. Orbax is imported lazily, so that ``import
jvae_jax`` doesn't import it.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

Tree = TypeVar("Tree")

_LATEST = 2
"""Number of latest checkpoints to keep; the second is a fallback if the first is damaged."""
_METRIC, _SUMS, _DIGEST = "negative_elbo", "sums", "sha256"
_ITEM = "state"


def _this_process_only() -> Any:
    """Options without barriers: the state is the same in all processes, and one saves it."""
    from orbax.checkpoint.options import MultiprocessingOptions

    this = jax.process_index()
    return MultiprocessingOptions(
        primary_host=this, active_processes={this}, barrier_sync_key_prefix=f"process_{this}"
    )


class CheckpointError(RuntimeError):
    """A checkpoint is missing, damaged or can't be written."""


def restore_latest(folder: Path, like: Tree) -> tuple[Tree | None, dict[int, str]]:
    """Restores the latest checkpoint that can be read.

    Args:
        folder: folder of the checkpoints; it may be missing.
        like: tree of arrays, or of shapes and dtypes, of the structure to restore.

    Returns:
        The tree, on the host, or None if there are no checkpoints; and the damaged later steps,
        each with the reason.

    Raises:
        CheckpointError: if there are checkpoints, but all are damaged.
    """
    damaged = {}
    for step in sorted(_steps(folder), reverse=True):
        try:
            # Orbax won't open a folder in which a metric can't be read.
            _metric(folder, step)
            return _restore(folder, step, like), damaged
        except Exception as error:  # the type depends on which file is damaged
            damaged[step] = _one_line(error)
    if damaged:
        reasons = "; ".join(f"step {step}: {reason}" for step, reason in damaged.items())
        raise CheckpointError(
            f"no checkpoint in {folder} can be read, and nothing was removed: {reasons}"
        )
    return None, damaged


def metric_sums(folder: Path, step: int) -> dict[str, float]:
    """Returns the metric sums saved with a step; empty if an epoch ended there."""
    return dict(_metrics(folder, step).get(_SUMS, {}))


def restore_best(folder: Path, like: Tree) -> Tree:
    """Restores the checkpoint with the lowest negative ELBO on the test split.

    Args:
        folder: folder of the checkpoints.
        like: tree of arrays, or of shapes and dtypes, of the structure to restore.

    Raises:
        CheckpointError: if there is none, or it is damaged.
    """
    try:
        metrics = {step: _metric(folder, step) for step in _steps(folder)}
        if metrics:
            return _restore(folder, min(metrics, key=metrics.__getitem__), like)
    except Exception as error:  # the type depends on which file is damaged
        raise CheckpointError(
            f"the best checkpoint in {folder} can't be read: {_one_line(error)}"
        ) from error
    raise CheckpointError(f"there is no checkpoint in {folder}")


def set_aside(folder: Path, steps: Iterable[int]) -> Path:
    """Moves damaged steps to the folder ``damaged_checkpoints`` beside this one; returns it."""
    aside = folder.with_name("damaged_checkpoints")
    aside.mkdir(exist_ok=True)
    for step in steps:
        (folder / str(step)).rename(aside / f"{step}-{time.time_ns()}")
    return aside


class CheckpointWriter:
    """Saves checkpoints; keeps the latest two and the one with the lowest negative ELBO."""

    def __init__(self, folder: Path) -> None:
        """Opens or creates the folder. Damaged steps must have been set aside."""
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import preservation_policy

        best = preservation_policy.BestN(
            get_metric_fn=lambda metrics: metrics[_METRIC], reverse=True, n=1
        )
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=preservation_policy.AnyPreservationPolicy(
                    [preservation_policy.LatestN(_LATEST), best]
                ),
                # Orbax writes metrics only if there is a best_fn.
                best_fn=lambda metrics: metrics[_METRIC],
                best_mode="min",
                cleanup_tmp_directories=True,
                create=False,
                multiprocessing_options=_this_process_only(),
            ),
        )

    def save(
        self, step: int, tree: Any, *, negative_elbo: float, metric_sums: Mapping[str, float]
    ) -> None:
        """Copies the tree to the host and saves it in the background.

        Args:
            step: training step.
            tree: tree of arrays.
            negative_elbo: negative ELBO on the test split, by which the best is chosen.
            metric_sums: sums of the metrics of the epoch so far, if it isn't finished.

        Raises:
            CheckpointError: if this checkpoint or the previous one can't be written.
        """
        from orbax.checkpoint import args

        tree = jax.device_get(tree)
        with self._reporting_errors():
            self._manager.save(
                step,
                args=args.Composite(**{_ITEM: args.StandardSave(tree)}),
                metrics={_METRIC: negative_elbo, _SUMS: dict(metric_sums), _DIGEST: _digest(tree)},
            )

    def close(self) -> None:
        """Waits until all checkpoints are on disk.

        Raises:
            CheckpointError: if one can't be written.
        """
        with self._reporting_errors():
            self._manager.wait_until_finished()
            self._manager.close()

    @contextmanager
    def _reporting_errors(self) -> Iterator[None]:
        """Turns any error while writing into a CheckpointError."""
        try:
            yield
        except Exception as error:  # of Orbax, TensorStore or the operating system
            good = _steps(self._folder)
            latest = (
                f"the latest intact one is of step {max(good)}" if good else "there is none yet"
            )
            raise CheckpointError(
                f"a checkpoint can't be written to {self._folder} ({_one_line(error)}); {latest}. "
                "Once the folder is writable, the same command resumes from there"
            ) from error


def _steps(folder: Path) -> list[int]:
    """Returns the finished steps: Orbax writes to a temporary name and renames at the end."""
    if not folder.is_dir():
        return []
    return [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _metric(folder: Path, step: int) -> float:
    return float(_metrics(folder, step)[_METRIC])


def _metrics(folder: Path, step: int) -> dict[str, Any]:
    path = folder / str(step) / "metrics" / "metrics"
    return dict(json.loads(path.read_text()))


def _restore(folder: Path, step: int, like: Tree) -> Tree:
    import orbax.checkpoint as ocp

    host = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)
    path = (folder / str(step) / _ITEM).absolute()
    with ocp.StandardCheckpointer(multiprocessing_options=_this_process_only()) as checkpointer:
        restored: Any = checkpointer.restore(path, host)
    # Orbax doesn't detect a flipped bit in an array.
    if _metrics(folder, step).get(_DIGEST, digest := _digest(restored)) != digest:
        raise ValueError("the checksum of its arrays doesn't match")
    return restored


def _digest(tree: Any) -> str:
    """Returns a hash of a tree of arrays: of their values, dtypes and shapes."""
    digest = hashlib.sha256()
    for array in map(np.asarray, jax.tree.leaves(tree)):
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()

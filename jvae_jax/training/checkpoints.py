"""Checkpoints of a run: the latest two and the best, by Orbax.

Trees are saved from and restored to the host, so any number of devices can write them and any other
number go on from them. Reading never changes a folder.
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
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy
from orbax.checkpoint.options import MultiprocessingOptions

Tree = TypeVar("Tree")

_LATEST = 2
"""How many are kept, so that a damaged one has another behind it."""
_METRIC, _SUMS, _DIGEST = "negative_elbo", "sums", "sha256"
_ITEM = "state"


def _alone() -> MultiprocessingOptions:
    """Not waiting for other processes: the state is the same in all, and one of them saves it."""
    this = jax.process_index()
    return MultiprocessingOptions(
        primary_host=this, active_processes={this}, barrier_sync_key_prefix=f"process_{this}"
    )


class CheckpointError(RuntimeError):
    """There is no checkpoint that can be read."""


def restore_latest(folder: Path, like: Tree) -> tuple[Tree | None, dict[int, str]]:
    """The latest checkpoint that can be read.

    Args:
        folder: where the checkpoints are, if there are any.
        like: a tree of arrays of the shapes and dtypes that are expected.

    Returns:
        The tree, on the host, or None if there are no checkpoints; and the later steps that are
        damaged, with what is wrong with each.

    Raises:
        CheckpointError: if there are checkpoints, but all are damaged.
    """
    damaged = {}
    for step in sorted(_steps(folder), reverse=True):
        try:
            # Orbax won't open a folder in which a metric can't be read.
            _metric(folder, step)
            return _restore(folder, step, like), damaged
        except Exception as error:  # half a dozen kinds, by which file it was
            damaged[step] = " ".join(str(error).split())[:200]
    if damaged:
        reasons = "; ".join(f"step {step}: {reason}" for step, reason in damaged.items())
        raise CheckpointError(
            f"no checkpoint in {folder} can be read, and nothing was removed: {reasons}"
        )
    return None, damaged


def sums_at(folder: Path, step: int) -> dict[str, float]:
    """The sums of the metrics that were saved with a step; none if an epoch ended there."""
    return dict(_metrics(folder, step).get(_SUMS, {}))


def restore_best(folder: Path, like: Tree) -> Tree:
    """The checkpoint of the lowest negative ELBO.

    Raises:
        CheckpointError: if there is none, or it is damaged.
    """
    try:
        metrics = {step: _metric(folder, step) for step in _steps(folder)}
        if metrics:
            return _restore(folder, min(metrics, key=metrics.__getitem__), like)
    except Exception as error:  # half a dozen kinds, by which file it was
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"the best checkpoint in {folder} can't be read: {reason}") from error
    raise CheckpointError(f"there is no checkpoint in {folder}")


def set_aside(folder: Path, steps: Iterable[int]) -> Path:
    """Moves steps out of the way, into a folder beside this one, which it returns."""
    aside = folder.with_name("damaged_checkpoints")
    aside.mkdir(exist_ok=True)
    for step in steps:
        (folder / str(step)).rename(aside / f"{step}-{time.time_ns()}")
    return aside


class CheckpointWriter:
    """Saves to a folder and keeps the latest two and the one of the lowest negative ELBO."""

    def __init__(self, folder: Path) -> None:
        """Opens a folder, making it if need be. What is damaged must have been set aside."""
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
                # Without best_fn no metrics are written.
                best_fn=lambda metrics: metrics[_METRIC],
                best_mode="min",
                cleanup_tmp_directories=True,
                create=False,
                multiprocessing_options=_alone(),
            ),
        )

    def save(
        self, step: int, tree: Any, *, negative_elbo: float, sums: Mapping[str, float]
    ) -> None:
        """Saves in the background; the tree itself is copied at once.

        Args:
            step: which one it is.
            tree: of arrays.
            negative_elbo: by which the best is found.
            sums: of the metrics so far, where an epoch isn't finished.

        Raises:
            CheckpointError: if this or the one before can't be written.
        """
        tree = jax.device_get(tree)
        with self._telling():
            self._manager.save(
                step,
                args=ocp.args.Composite(**{_ITEM: ocp.args.StandardSave(tree)}),
                metrics={_METRIC: negative_elbo, _SUMS: dict(sums), _DIGEST: _digest(tree)},
            )

    def close(self) -> None:
        """Waits until all is on disk.

        Raises:
            CheckpointError: if it can't be written.
        """
        with self._telling():
            self._manager.wait_until_finished()
            self._manager.close()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of Orbax, TensorStore or the operating system
            good = _steps(self._folder)
            kept = f"the last good one is of step {max(good)}" if good else "there is none yet"
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"a checkpoint can't be written into {self._folder} ({reason}); {kept}. When it "
                "can be written again, the same command goes on from there"
            ) from error


def _steps(folder: Path) -> list[int]:
    """The steps that were saved to their end: Orbax writes under another name, then renames."""
    if not folder.is_dir():
        return []
    return [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]


def _metric(folder: Path, step: int) -> float:
    return float(_metrics(folder, step)[_METRIC])


def _metrics(folder: Path, step: int) -> dict[str, Any]:
    path = folder / str(step) / "metrics" / "metrics"
    return dict(json.loads(path.read_text()))


def _restore(folder: Path, step: int, like: Tree) -> Tree:
    host = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)
    path = (folder / str(step) / _ITEM).absolute()
    with ocp.StandardCheckpointer(multiprocessing_options=_alone()) as checkpointer:
        restored: Any = checkpointer.restore(path, host)
    # Orbax reads a flipped bit of an array without a word.
    if _metrics(folder, step).get(_DIGEST, digest := _digest(restored)) != digest:
        raise ValueError("its arrays aren't those that were saved")
    return restored


def _digest(tree: Any) -> str:
    """A hash of a tree of arrays: of their values, dtypes and shapes."""
    digest = hashlib.sha256()
    for array in map(np.asarray, jax.tree.leaves(tree)):
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()

"""Checkpoints of a run, by Orbax: the latest two and the best.

A checkpoint is the folder of a step: ``state``, written by Orbax, and ``metrics/metrics``, JSON
with a checksum of both. It is written under a temporary name and renamed, so it is there whole or
not at all.

Trees are saved from and restored to the host, so the number of devices may change when a run is
resumed. Reading never changes a folder. Orbax is imported lazily, so that ``import
jvae_jax`` doesn't import it.
"""

import json
import math
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from jvae_jax.files import array_digest

Tree = TypeVar("Tree")

_LATEST = 2
"""Number of latest checkpoints to keep; the second is a fallback if the first is damaged."""
_METRIC, _SUMS, _DIGEST = "negative_elbo", "sums", "sha256"
_ITEM = "state"
_TEMPORARY = ".orbax-checkpoint-tmp"
"""Suffix of a step that is being written or removed, as Orbax names it."""


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
            return _restore(folder, step, like)[1], damaged
        except Exception as error:  # the type depends on which file is damaged
            damaged[step] = _one_line(error)
    _check_not_all_damaged(folder, damaged)
    return None, damaged


def restore_best(folder: Path, like: Tree) -> tuple[Tree | None, dict[int, str]]:
    """Restores the checkpoint with the lowest negative ELBO on the test split.

    Args:
        folder: folder of the checkpoints; it may be missing.
        like: tree of arrays, or of shapes and dtypes, of the structure to restore.

    Returns:
        The tree, on the host, or None if there are no checkpoints; and all damaged steps, each with
        the reason. One of them may have been the best.

    Raises:
        CheckpointError: if there are checkpoints, but all are damaged.
    """
    lowest, best, damaged = math.inf, None, {}
    for step in sorted(_steps(folder)):
        try:
            metric, tree = _restore(folder, step, like)
        except Exception as error:  # the type depends on which file is damaged
            damaged[step] = _one_line(error)
        else:
            if metric <= lowest:
                lowest, best = metric, tree
    if best is None:
        _check_not_all_damaged(folder, damaged)
    return best, damaged


def _check_not_all_damaged(folder: Path, damaged: Mapping[int, str]) -> None:
    if damaged:
        reasons = "; ".join(f"step {step}: {reason}" for step, reason in damaged.items())
        raise CheckpointError(
            f"no checkpoint in {folder} can be read, and nothing was removed: {reasons}"
        )


def metric_sums(folder: Path, step: int) -> dict[str, float]:
    """Returns the metric sums saved with a step; empty if an epoch ended there."""
    return dict(_metrics(folder, step).get(_SUMS, {}))


def set_aside(folder: Path, steps: Iterable[int]) -> Path:
    """Moves damaged steps to the folder ``damaged_checkpoints`` beside this one; returns it."""
    aside = folder.with_name("damaged_checkpoints")
    aside.mkdir(exist_ok=True)
    for step in steps:
        (folder / str(step)).rename(aside / f"{step}-{time.time_ns()}")
    return aside


class CheckpointWriter:
    """Saves checkpoints; keeps the latest two and the one with the lowest negative ELBO.

    Orbax's CheckpointManager isn't used: if it can't create a folder, its threads wait for five
    minutes and keep the process from ending, and it can't open a folder in which the metrics of any
    step are damaged.
    """

    def __init__(self, folder: Path) -> None:
        """Opens or creates the folder. Damaged steps must have been set aside.

        Raises:
            CheckpointError: if the folder can't be written.
        """
        self._folder = folder
        self._saving: Future[None] | None = None
        # In the main thread, Orbax warns that saving blocks it.
        self._executor = ThreadPoolExecutor(max_workers=1)
        with self._reporting_errors():
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.glob(f"*{_TEMPORARY}*"):
                shutil.rmtree(path)

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
            CheckpointError: if the previous checkpoint can't be written.
        """
        self.wait()
        # On CPU, device_get may return the memory of a buffer that the next step reuses.
        tree = jax.tree.map(np.array, jax.device_get(tree))
        metrics = {_METRIC: negative_elbo, _SUMS: dict(metric_sums)}
        self._saving = self._executor.submit(_save, self._folder, step, tree, metrics)

    def check(self) -> None:
        """Raises CheckpointError if a checkpoint can't be written, without waiting for it."""
        if self._saving is not None and self._saving.done():
            self.wait()

    def close(self) -> None:
        """Waits as :meth:`wait` does, and ends the thread that saves."""
        try:
            self.wait()
        finally:
            self._executor.shutdown()

    def wait(self) -> None:
        """Waits until all checkpoints are on disk.

        Raises:
            CheckpointError: if one can't be written.
        """
        saving, self._saving = self._saving, None
        if saving is not None:
            with self._reporting_errors():
                saving.result()

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


def _save(folder: Path, step: int, tree: Any, metrics: dict[str, Any]) -> None:
    """Writes a checkpoint, and removes those that are neither the latest nor the best."""
    from orbax.checkpoint import args

    temporary = _temporary(folder, step)
    (temporary / "metrics").mkdir(parents=True)
    with _checkpointer() as checkpointer:
        checkpointer.save((temporary / _ITEM).absolute(), args=args.StandardSave(_present(tree)))
    digest = array_digest(jax.tree.leaves(tree), _describe(step, metrics))
    contents = json.dumps({**metrics, _DIGEST: digest})
    (temporary / "metrics" / "metrics").write_text(contents)
    temporary.rename(folder / str(step))
    for obsolete in _obsolete(folder):
        # A step is there whole or not at all, also if its removal is interrupted.
        temporary = (folder / str(obsolete)).rename(_temporary(folder, obsolete))
        shutil.rmtree(temporary)


def _obsolete(folder: Path) -> set[int]:
    """Returns the steps to remove; never one that can't be read, which may be the best."""
    metrics = {}
    for step in sorted(_steps(folder), reverse=True):
        with suppress(OSError, ValueError):
            metrics[step] = _metrics(folder, step)[_METRIC]
    # Of equal ones, the latest is the best.
    return metrics.keys() - {*list(metrics)[:_LATEST], min(metrics, key=metrics.__getitem__)}


def _temporary(folder: Path, step: int) -> Path:
    return folder / f"{step}{_TEMPORARY}"


def _steps(folder: Path) -> list[int]:
    """Returns the finished steps."""
    if not folder.is_dir():
        return []
    names = (path.name for path in folder.iterdir())
    return [int(name) for name in names if name.isdecimal() and name == str(int(name))]


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    # In TensorStore's messages, the reason is far behind the path.
    code = re.search(r"os_error_code='(\d+)'", text)
    return text[:200] if code is None else f"{text[:120]} ... {os.strerror(int(code[1]))}"


def _metrics(folder: Path, step: int) -> dict[str, Any]:
    """Reads the metrics of a step.

    Raises:
        ValueError: if they are damaged, or the step contains a link or a special file.
        OSError: if they can't be read.
    """
    path = folder / str(step)
    for entry in (path, *path.rglob("*")):
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            kind = "a symbolic link" if entry.is_symlink() else "neither a file nor a folder"
            raise ValueError(f"{entry} is {kind}")
    path = path / "metrics" / "metrics"
    try:
        metrics = json.loads(path.read_text())
        numbers = [metrics[_METRIC], *metrics.get(_SUMS, {}).values()]
        if any(type(number) not in (int, float) or math.isnan(number) for number in numbers):
            raise ValueError("not all are numbers")
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is invalid: {error}") from error
    return metrics


def _restore(folder: Path, step: int, like: Tree) -> tuple[float, Tree]:
    """Returns the negative ELBO and the tree of a step."""
    from orbax.checkpoint import args

    metrics = _metrics(folder, step)
    host = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)
    path = (folder / str(step) / _ITEM).absolute()
    with _checkpointer() as checkpointer:
        restored: Any = checkpointer.restore(path, args=args.StandardRestore(_present(host)))
    if hasattr(like, "_fields"):
        restored = like._replace(**restored)  # type: ignore[attr-defined]
    # Orbax doesn't detect a flipped bit in an array.
    if (digest := metrics.pop(_DIGEST, None)) is not None:
        leaves = jax.tree.leaves(restored)
        # Earlier checksums were of the arrays only.
        if digest not in (array_digest(leaves, _describe(step, metrics)), array_digest(leaves)):
            raise ValueError("the checksum of its arrays and metrics doesn't match")
    return metrics[_METRIC], restored


def _present(tree: Any) -> Any:
    """Returns a named tuple as a dict without the fields that are None; other trees as they are.

    Orbax gives the arrays of both the same names. A field that an earlier version didn't have can
    then be None.
    """
    if not hasattr(tree, "_fields"):
        return tree
    return {name: value for name, value in tree._asdict().items() if value is not None}


def _describe(step: int, metrics: Mapping[str, Any]) -> str:
    """Returns what the checksum covers beside the arrays."""
    return json.dumps({"step": step, **metrics}, sort_keys=True)


def _checkpointer() -> Any:
    """Returns a checkpointer without barriers: one process saves, the state is the same in all."""
    import orbax.checkpoint as ocp
    from orbax.checkpoint.options import MultiprocessingOptions

    this = jax.process_index()
    options = MultiprocessingOptions(
        primary_host=this, active_processes={this}, barrier_sync_key_prefix=f"process_{this}"
    )
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=options)
    return ocp.Checkpointer(handler, multiprocessing_options=options)

"""Checkpoints of a run: the latest ones and the best, by Orbax."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

Tree = TypeVar("Tree")

_LATEST = 2
"""How many are kept, so that a damaged one has another behind it."""
_METRIC = "negative_elbo"


class CheckpointError(RuntimeError):
    """There are checkpoints, but none that can be read."""


class Checkpoints:
    """The checkpoints in one folder: the latest two and the one of the lowest negative ELBO.

    Trees are saved from and restored to the host, so any number of devices can write them and any
    other number go on from them.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        """Opens a folder, making it if need be; ``read_only`` never changes what is there."""
        self.folder = folder.absolute()
        best = preservation_policy.BestN(
            get_metric_fn=lambda metrics: metrics[_METRIC], reverse=True, n=1
        )
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=preservation_policy.AnyPreservationPolicy(
                    [preservation_policy.LatestN(_LATEST), best]
                ),
                # Without best_fn no metrics are written.
                best_fn=lambda metrics: metrics[_METRIC],
                best_mode="min",
                cleanup_tmp_directories=not read_only,
                create=not read_only,
                read_only=read_only,
            ),
        )

    def save(self, step: int, tree: Any, *, negative_elbo: float) -> None:
        """Saves in the background; the tree itself is copied at once."""
        self._manager.save(
            step,
            args=ocp.args.StandardSave(jax.device_get(tree)),
            metrics={_METRIC: negative_elbo},
        )

    def restore_latest(self, like: Tree) -> tuple[Tree | None, dict[int, str]]:
        """The latest checkpoint that can be read.

        Args:
            like: a tree of arrays of the shapes and dtypes that are expected.

        Returns:
            The tree, on the host, or None if there are no checkpoints; and the later steps that
            are damaged, with what is wrong with each.

        Raises:
            CheckpointError: if there are checkpoints, but all are damaged.
        """
        damaged = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                return self._restore(step, like), damaged
            except Exception as error:  # Orbax raises half a dozen kinds, by which file it was.
                damaged[step] = str(error).strip().splitlines()[0][:200]
        if damaged:
            raise CheckpointError(
                f"no checkpoint in {self.folder} can be read, and nothing was removed: "
                + "; ".join(f"step {step}: {reason}" for step, reason in damaged.items())
            )
        return None, damaged

    def restore_best(self, like: Tree) -> Tree:
        """The checkpoint of the lowest negative ELBO.

        Raises:
            CheckpointError: if there is none, or it is damaged.
        """
        step = self._manager.best_step()
        if step is None:
            raise CheckpointError(f"there is no checkpoint in {self.folder}")
        try:
            return self._restore(step, like)
        except Exception as error:
            raise CheckpointError(f"step {step} in {self.folder} can't be read: {error}") from error

    def set_aside(self, steps: Iterable[int]) -> Path:
        """Moves steps out of the way, to a folder beside this one, which it returns."""
        aside = self.folder.with_name("damaged_checkpoints")
        for step in steps:
            target = aside / f"{step}-{time.time_ns()}"
            target.parent.mkdir(exist_ok=True)
            (self.folder / str(step)).rename(target)
        self._manager.reload()
        return aside

    def close(self) -> None:
        """Waits until all is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()

    def _restore(self, step: int, like: Tree) -> Tree:
        host = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)
        restored: Any = self._manager.restore(step, args=ocp.args.StandardRestore(host))
        return restored

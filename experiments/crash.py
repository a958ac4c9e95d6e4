"""Tests resumption after SIGKILL: python experiments/crash.py --kills=100

Training is killed at random moments between the start of the process and the end of evaluation, and
the same command is run again. The state and files of the finished run are compared, bit for bit,
with those of an uninterrupted run. This repeats until the given number of kills.
"""

import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from jvae_jax import cli
from jvae_jax.training.run import load_run

TRAIN = Path(__file__).with_name("train.py")
PYTHON = [sys.executable, *["-O"] * sys.flags.optimize]
SMALL = ["--dataset=mnist_5k", "--image_size=8", "--batch_size=200", "--latents=3"]
FILES = ("metrics.jsonl", "evaluation.json", "samples.png")


@dataclass(frozen=True, kw_only=True)
class CrashConfig:
    """Options of the crash test."""

    kills: int = 100
    """Number of kills."""
    epochs: int = 8
    """Epochs of each run; each is checkpointed."""
    seed: int = 0
    """Seed of the moments of the kills."""
    workdir: str = "runs/crash"
    """Folder of the runs; it must not exist."""

    def __post_init__(self) -> None:
        if self.kills < 1:
            raise ValueError(f"kills must be 1 or more, got {self.kills}")


def crash(config: CrashConfig) -> None:
    folder = Path(config.workdir)
    folder.mkdir(parents=True)
    rng = random.Random(config.seed)
    # The first run fills the compilation cache, so only the second one's duration is typical.
    for name in ("first", "uninterrupted"):
        started = time.monotonic()
        _wait(_start(config, folder / name), timeout=None)
    duration = time.monotonic() - started
    kills = kills_after_save = finished = 0
    while kills < config.kills:
        run = folder / f"run-{finished}"
        while not _wait(
            _start(config, run),
            timeout=rng.uniform(0, 1.1 * duration) if kills < config.kills else None,
        ):
            kills += 1
            kills_after_save += any((run / "checkpoints").glob("[0-9]*"))
        finished += 1
        if different := differences(folder / "uninterrupted", run):
            raise RuntimeError(f"after {kills} kills {run} differs in {', '.join(different)}")
        print(
            f"{kills} of {config.kills} kills, {kills_after_save} of them after a checkpoint; "
            f"{finished} runs identical to the uninterrupted one",
            flush=True,
        )


def differences(one: Path, other: Path) -> list[str]:
    """Names of the arrays and files that differ between two runs."""
    states = [load_run(path).load_state() for path in (one, other)]
    paths = jax.tree_util.tree_flatten_with_path(states[0])[0]
    different = [
        jax.tree_util.keystr(path)
        for (path, leaf), other_leaf in zip(paths, jax.tree.leaves(states[1]), strict=True)
        if not np.array_equal(leaf, other_leaf)
    ]
    return [*different, *(f for f in FILES if (one / f).read_bytes() != (other / f).read_bytes())]


def _start(config: CrashConfig, run: Path) -> subprocess.Popen[str]:
    flags = [*SMALL, f"--epochs={config.epochs}", "--save_every=1", f"--workdir={run}"]
    return subprocess.Popen(
        [*PYTHON, str(TRAIN), *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait(process: subprocess.Popen[str], *, timeout: float | None) -> bool:
    """Waits for a process and kills it after ``timeout`` seconds.

    Returns:
        Whether it finished in time.

    Raises:
        RuntimeError: if it failed.
    """
    with process:
        try:
            _, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            return False
    if process.returncode:
        raise RuntimeError(f"train.py ended with {process.returncode}: {stderr.strip()}")
    return True


if __name__ == "__main__":
    cli.run(crash, CrashConfig, description="Kill and resume runs; compare their results.")

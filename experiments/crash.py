"""Kills a training again and again: python experiments/crash.py --kills=100

SIGKILL at random moments, from the start of the process through training and saving to the
evaluation, after which the same command goes on. Once it has ended, its state and files are
compared, bit for bit, with those of one that was never stopped; then the next run begins.
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
from jvae_jax.validation import option

TRAIN = Path(__file__).with_name("train.py")
SMALL = ["--dataset=mnist_5k", "--image_size=8", "--batch_size=200", "--latents=3"]
FILES = ("metrics.jsonl", "evaluation.json", "samples.png")


@dataclass(frozen=True, kw_only=True)
class CrashConfig:
    kills: int = option("how many", default=100)
    epochs: int = option("of each run, each of which is saved", default=8)
    seed: int = option("of the moments", default=0)
    workdir: str = option("folder of the runs, which mustn't be there yet", default="runs/crash")

    def __post_init__(self) -> None:
        if self.kills < 1:
            raise ValueError(f"kills must be 1 or more, got {self.kills}")


def crash(config: CrashConfig) -> None:
    folder = Path(config.workdir)
    folder.mkdir(parents=True)
    moments = random.Random(config.seed)
    # The first one compiles what the others needn't, so the second tells how long one takes.
    for name in ("first", "whole"):
        started = time.monotonic()
        assert not _killed(_start(config, folder / name), None)
    duration = time.monotonic() - started
    kills = saved = finished = 0
    while kills < config.kills:
        run = folder / f"run-{finished}"
        while _killed(
            _start(config, run),
            moments.uniform(0, 1.1 * duration) if kills < config.kills else None,
        ):
            kills += 1
            saved += any((run / "checkpoints").glob("[0-9]*"))
        finished += 1
        if different := differences(folder / "whole", run):
            raise RuntimeError(f"after {kills} kills {run} differs in {', '.join(different)}")
        print(
            f"{kills} of {config.kills} kills, {saved} of them after something was saved; "
            f"{finished} runs are as never stopped",
            flush=True,
        )


def differences(one: Path, other: Path) -> list[str]:
    """What isn't bit for bit the same in two runs."""
    states = [load_run(path).load_state() for path in (one, other)]
    paths = jax.tree_util.tree_flatten_with_path(states[0])[0]
    different = [
        jax.tree_util.keystr(path)
        for (path, mine), yours in zip(paths, jax.tree.leaves(states[1]), strict=True)
        if not np.array_equal(mine, yours)
    ]
    return [*different, *(f for f in FILES if (one / f).read_bytes() != (other / f).read_bytes())]


def _start(config: CrashConfig, run: Path) -> subprocess.Popen[str]:
    flags = [*SMALL, f"--epochs={config.epochs}", "--save_every=1", f"--workdir={run}"]
    return subprocess.Popen(
        [sys.executable, str(TRAIN), *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _killed(process: subprocess.Popen[str], after: float | None) -> bool:
    """Whether it had to be killed after so many seconds, or else ended by itself."""
    with process:
        try:
            _, told = process.communicate(timeout=after)
        except subprocess.TimeoutExpired:
            process.kill()
            return True
    if process.returncode:
        raise RuntimeError(f"train.py ended with {process.returncode}: {told.strip()}")
    return False


if __name__ == "__main__":
    cli.run(crash, CrashConfig, description="Kill runs at random, and see that they end the same.")

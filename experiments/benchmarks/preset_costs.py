"""What a training step costs with each preset."""

import statistics
import time
from typing import Any

import jax

from benchmarks import format_ratio
from benchmarks.with_jax import JaxImplementation
from jvae_jax import PRESETS
from jvae_jax.training.provenance import environment

BATCH_SIZE = 64
ROUNDS = 9
STEPS = 50
_PAPER = "paper"


def measure() -> dict[str, Any]:
    """Times training with each preset, in alternation.

    On CPU it is the processor time of all cores together, which depends less on what else runs than
    the time that passes.
    """
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    tasks = {
        name: JaxImplementation(devices=1, objective=objective).train(BATCH_SIZE)
        for name, objective in PRESETS.items()
    }
    for task in tasks.values():
        task(STEPS)  # compiles
    milliseconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(ROUNDS):
        for name, task in tasks.items():
            start = clock()
            task(STEPS)
            milliseconds[name].append(1000 * (clock() - start) / STEPS)
    return {"milliseconds": milliseconds, "environment": environment()}


def report(results: dict[str, Any]) -> str:
    """Formats the results in Markdown."""
    lines = ["| preset | ms | times the paper's |", "| --- | ---: | ---: |"]
    for name, durations in results["milliseconds"].items():
        times = format_ratio(durations, results["milliseconds"][_PAPER])
        lines.append(f"| `{name}` | {statistics.median(durations):.1f} | {times} |")
    current = results["environment"]
    lines += [
        "",
        f"A step of {BATCH_SIZE} images; on CPU, its processor time. Median and quartiles of the "
        "rounds. "
        f"`python experiments/benchmark.py --measure=presets`; commit `{current['commit']}`, "
        f"jax {current['jax']}, {current['machine']}.",
    ]
    return "\n".join(lines)

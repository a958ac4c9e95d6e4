"""Times this library, linen's layers and PyTorch: python experiments/benchmark.py

    python experiments/benchmark.py --measure=all --readme

measures all else in experiments/benchmarks/README.md too, and rebuilds it.

Each implementation runs in its own process. They are timed in alternation, so that changes in the
machine's load affect all of them.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, cast

import jax
import optax
from benchmarks import (
    IMPLEMENTATIONS,
    TEST_IMAGES,
    TRAIN_IMAGES,
    format_ratio,
    memory,
    preset_costs,
    roofline,
    step_profile,
)
from benchmarks.flops import train_step_flops

from jvae_jax import Autoencoder, cli, plotting
from jvae_jax.files import atomic_write, write_json
from jvae_jax.training.step import state_shape

BASE = "jvae_jax"
SGEMM_SIZE = 2048
EXPERIMENTS = Path(__file__).parent
RESULTS = EXPERIMENTS / "results"
README = EXPERIMENTS / "benchmarks" / "README.md"
THROUGHPUT = (BASE, "linen, jit", "PyTorch", "PyTorch, tuned")
"""Implementations in the figure."""
_TICKS = (16.0, 64.0, 256.0, 1024.0)


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Options of the benchmark."""

    quick: bool = False
    """One batch size and few rounds: under a minute."""
    measure: Literal["speed", "profile", "presets", "memory", "all", "nothing"] = "speed"
    """What to measure: speed, a profile of the training step, what a step costs with each preset,
    memory over the number of training images (on Linux, with 11 GB of disk for temporary files),
    all, or nothing."""
    output: str = "benchmark.json"
    """JSON file to write."""
    readme: bool = False
    """Keep the results in experiments/results, and rebuild experiments/benchmarks/README.md and its
    figure from what is kept there."""

    def __post_init__(self) -> None:
        if self.quick and self.readme:
            raise ValueError("quick results are not kept; drop quick or readme")
        if self.measure in ("memory", "all") and sys.platform != "linux":
            raise ValueError("memory is measured on Linux only; use --measure=speed")


class Process:
    """An implementation in a worker process that serves requests."""

    def __init__(self, name: str, **environment: str) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks", name, str(time.time())],
            cwd=Path(__file__).parent,
            env={**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false", **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._requests = cast(IO[str], self._process.stdin)
        self._replies = cast(IO[str], self._process.stdout)

    def receive(self) -> dict[str, Any]:
        line = self._replies.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended unexpectedly; its error message is above")
        return json.loads(line)

    def request(self, task: str, batch_size: int = 0, times: int = 1) -> dict[str, Any]:
        message = {"task": task, "batch_size": batch_size, "times": times}
        self._requests.write(json.dumps(message) + "\n")
        self._requests.flush()
        return self.receive()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def plan(quick: bool) -> list[tuple[str, int, list[str]]]:
    """Tasks, batch sizes and the implementations to time."""
    single_device = [BASE, "linen, jit", "PyTorch"]
    if quick:
        return [(task, 64, single_device) for task in ("train", "sample", "evaluate")]
    single_device.append("PyTorch, tuned")
    training = [
        *single_device,
        "jvae_jax, data on host",
        "jvae_jax, 2 devices",
        "jvae_jax, 4 devices",
    ]
    return [
        ("train", 64, [*training, "linen, loop"]),
        *(("train", batch_size, training) for batch_size in (16, 256, 1024)),
        *(("sample", batch_size, single_device) for batch_size in (64, 512)),
        *(("evaluate", batch_size, single_device) for batch_size in (64, 512)),
    ]


def measure(
    processes: list[Process], task: str, batch_size: int, *, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Times a task in alternating rounds.

    Args:
        processes: workers of the implementations.
        task: name of the task.
        batch_size: images per batch.
        rounds: number of measurements of each implementation.
        seconds: approximate duration of a measurement.

    Returns:
        A row for each implementation, with the seconds per execution in each round.
    """
    times = {}
    for process in processes:
        process.request(task, batch_size)
        once = process.request(task, batch_size, 3)["seconds"] / 3
        times[process.name] = min(200, max(1, round(seconds / once)))
    durations: dict[str, list[float]] = {process.name: [] for process in processes}
    for _ in range(rounds):
        for process in processes:
            reply = process.request(task, batch_size, times[process.name])
            durations[process.name].append(reply["seconds"] / times[process.name])
    return [
        {"task": task, "batch_size": batch_size, "implementation": name, "seconds": measured}
        for name, measured in durations.items()
    ]


def start_up(cache: str) -> dict[str, float]:
    """Seconds from starting Python until imports and the first step are done."""
    with Process(BASE, JAX_COMPILATION_CACHE_DIR=cache) as process:
        ready = process.receive()["ready_seconds"]
        return {"imported": ready, "first_step": process.request("train", 64)["since_start"]}


def benchmark(quick: bool) -> dict[str, Any]:
    rounds, seconds = (3, 0.3) if quick else (9, 0.7)
    results: dict[str, Any] = {"quick": quick, "missing": [], "facts": {}, "measurements": []}
    with tempfile.TemporaryDirectory() as cache, ExitStack() as stack:
        results["first_start"], results["second_start"] = start_up(cache), start_up(cache)
        if not quick:
            with Process(BASE) as process:
                process.receive()
                results["peak_mib"] = process.request("whole_run")["peak_mib"]
                results["step_mib"] = [
                    [size, process.request("step_memory", size)["mib"]] for size in (64, 1024)
                ]
        processes = {}
        for name in dict.fromkeys(name for *_, names in plan(quick) for name in names):
            devices = IMPLEMENTATIONS[name][2].get("devices", 1)
            environment = {"XLA_FLAGS": _cpu_devices(devices)} if devices > 1 else {}
            process = Process(name, JAX_COMPILATION_CACHE_DIR=cache, **environment)
            processes[name] = stack.enter_context(process)
        for name, process in list(processes.items()):
            facts = process.receive()
            if "missing" in facts:
                print(f"skipped: {name}: {facts['missing']}", flush=True)
                results["missing"].append(name)
                del processes[name]
            else:
                results["facts"] |= facts["facts"]
        for task, batch_size, names in [("sgemm", SGEMM_SIZE, [BASE]), *plan(quick)]:
            results["measurements"] += measure(
                [processes[name] for name in names if name in processes],
                task,
                batch_size,
                rounds=rounds,
                seconds=seconds,
            )
            print(f"measured: {task}, batch of {batch_size}", flush=True)
    return results


def _cpu_devices(count: int) -> str:
    flag = f"--xla_force_host_platform_device_count={count}"
    return f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()


def report(results: dict[str, Any]) -> str:
    """Formats the results in Markdown."""
    rows: dict[tuple[str, int], dict[str, list[float]]] = {}
    for row in results["measurements"]:
        by_implementation = rows.setdefault((row["task"], row["batch_size"]), {})
        by_implementation[row["implementation"]] = row["seconds"]
    sgemm = rows.pop(("sgemm", SGEMM_SIZE))[BASE]
    others = [name for name in IMPLEMENTATIONS if any(name in row for row in rows.values())]
    others.remove(BASE)
    lines = [
        "| | images/s | ms | " + " | ".join(f"speed-up over {name}" for name in others) + " |",
        "|---|---:|---:|" + "---:|" * len(others),
    ]
    for (task, batch_size), durations in rows.items():
        median = statistics.median(durations[BASE])
        images = TEST_IMAGES if task == "evaluate" else batch_size
        cells = [f"{task}, batch of {batch_size}", f"{images / median:,.0f}", f"{1e3 * median:.1f}"]
        cells += [
            _speed_up(durations[BASE], durations[name]) if name in durations else ""
            for name in others
        ]
        lines.append("| " + " | ".join(cells) + " |")

    rate = 2 * SGEMM_SIZE**3 / statistics.median(sgemm)
    operations = train_step_flops(Autoencoder((32, 32, 1)), 64)
    step = statistics.median(rows["train", 64][BASE])
    first, second = results["first_start"], results["second_start"]
    facts = ", ".join(
        f"{name} {value}"
        for name, value in results["facts"].items()
        if name.islower() and not name.startswith("jax_")  # without compiler flags
    )
    lines += [
        "",
        f"- Throughput of {SGEMM_SIZE}x{SGEMM_SIZE} matrix products: {rate / 1e9:.0f} GFLOP/s. A "
        f"training step of 64 images is {operations / 1e9:.2f} GFLOP by an analytic count, so at "
        f"least {1e3 * operations / rate:.1f} ms; the measured time is "
        f"{step * rate / operations:.2f} times that.",
        f"- Time from starting Python to the end of the first step: {first['first_step']:.1f} s, "
        f"or {second['first_step']:.1f} s with a warm compilation cache.",
    ]
    if "peak_mib" in results:
        peak = results["peak_mib"]
        lines.append(f"- Peak memory of a run on 60,000 images: {peak:,.0f} MiB.")
    if "step_mib" in results:
        (few, small), (many, large) = results["step_mib"]
        lines.append(
            f"- Temporary memory of a training step of {few} images: {small:,.0f} MiB; of "
            f"{many:,}: {large:,.0f} MiB, or {1024 * (large - small) / (many - few):,.0f} KiB per "
            "additional image."
        )
    state = state_shape(Autoencoder((32, 32, 1)), optax.adam(1e-3))
    state_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    lines.append(
        "- Memory of parameters, their moving average and the optimizer's moments: "
        f"{state_bytes / 2**20:.1f} MiB; of {TRAIN_IMAGES:,} images: "
        f"{TRAIN_IMAGES * 32 * 32 / 2**20:.0f} MiB."
    )
    lines += [f"- Skipped: {name}." for name in results["missing"]]
    return "\n".join([*lines, f"- Environment: {facts}."])


def throughput(results: dict[str, Any]) -> plotting.Figure:
    """Plots images per second over the batch size, with the range of the rounds."""
    charts: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for task in ("train", "sample"):
        series = charts.setdefault(f"{task}, images/s", {})
        for row in sorted(results["measurements"], key=lambda row: row["batch_size"]):
            if row["task"] == task and row["implementation"] in THROUGHPUT:
                x, y = series.setdefault(row["implementation"], ([], []))
                x += [float(row["batch_size"])] * len(row["seconds"])
                y += [row["batch_size"] / seconds for seconds in row["seconds"]]
    figure = plotting.line_charts(charts, "batch size", logarithmic=True, x_ticks=_TICKS)
    for axes in figure.axes:
        axes.set_ylim(bottom=0)
    return figure


def rebuild_readme(accelerators: str) -> None:
    """Writes the kept results into README.md, between comments that name them, and the figure.

    Args:
        accelerators: the table of accelerators.
    """
    kept = {
        name: json.loads(measurement.kept.read_text(encoding="utf-8"))
        for name, measurement in MEASUREMENTS.items()
    }
    text = README.read_text(encoding="utf-8")
    sections = {name: MEASUREMENTS[name].report(results) for name, results in kept.items()}
    sections["accelerators"] = accelerators
    for name, contents in sections.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        head, rest = text.split(start)
        text = f"{head}{start}\n{contents}\n\n{end}{rest.split(end)[1]}"
    for suffix in ("png", "pdf"):
        with atomic_write(README.parent / f"throughput.{suffix}") as file:
            throughput(kept["speed"]).savefig(file, format=suffix)
    with atomic_write(README) as file:
        file.write(text.encode())


class Measurement(NamedTuple):
    """How a measurement is made, reported and kept."""

    measure: Callable[[BenchmarkConfig], dict[str, Any]]
    """Makes the results."""
    report: Callable[[dict[str, Any]], str]
    """Formats them in Markdown."""
    kept: Path
    """File of the results from which README.md is built."""


MEASUREMENTS = {
    # Speed first: the workers need the accelerator, which later measurements take.
    "speed": Measurement(
        lambda config: benchmark(config.quick), report, RESULTS / "benchmark-cpu.json"
    ),
    "memory": Measurement(lambda _: memory.measure(), memory.report, RESULTS / "memory-cpu.json"),
    "profile": Measurement(
        lambda _: step_profile.measure(), step_profile.report, RESULTS / "profile-cpu.json"
    ),
    "presets": Measurement(
        lambda _: preset_costs.measure(), preset_costs.report, RESULTS / "presets-cpu.json"
    ),
}
"""Measurements in the order in which they are made."""


def _speed_up(base: list[float], other: list[float]) -> str:
    """Median and quartiles of other / base per round, and the other's median time."""
    return f"{format_ratio(other, base)}, {1e3 * statistics.median(other):.1f} ms"


def main(config: BenchmarkConfig) -> None:
    measured = {}
    for name, measurement in MEASUREMENTS.items():
        if config.measure in (name, "all"):
            measured[name] = measurement.measure(config)
            print(measurement.report(measured[name]))
            write_json(Path(config.output), measured)
    if config.readme:
        accelerators = roofline.report()  # before files change, which the commit would tell
        for name, results in measured.items():
            write_json(MEASUREMENTS[name].kept, results)
        rebuild_readme(accelerators)


if __name__ == "__main__":
    cli.run(main, BenchmarkConfig, description="Time training, sampling and evaluation.")

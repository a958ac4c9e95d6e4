"""Times this library beside linen's layers and PyTorch: python experiments/benchmark.py

Each contestant has a process of its own, and they take turns, so that all meet the same machine.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import optax
from benchmarks import CONTESTANTS, TEST_IMAGES, TRAIN_IMAGES
from benchmarks.flops import train_step_flops

from jvae_jax import Autoencoder, cli
from jvae_jax.files import write_json
from jvae_jax.training.step import state_shape
from jvae_jax.validation import option

BASE = "jvae_jax"
SGEMM_SIZE = 2048


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    quick: bool = option("one batch size, few rounds: under a minute", default=False)
    output: str = option("the file of JSON to write", default="benchmark.json")


class Process:
    """A contestant that waits for requests."""

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

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended; what it said is above")
        return json.loads(line)

    def ask(self, task: str, batch_size: int = 0, times: int = 1) -> dict[str, Any]:
        assert self._process.stdin is not None
        request = {"task": task, "batch_size": batch_size, "times": times}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self.answer()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def plan(quick: bool) -> list[tuple[str, int, list[str]]]:
    """Which contestants do what, at which batch size."""
    usual = [BASE, "linen, jit", "PyTorch"]
    if quick:
        return [(task, 64, usual) for task in ("train", "sample", "evaluate")]
    usual.append("PyTorch, tuned")
    every = [*usual, "jvae_jax, 2 devices", "jvae_jax, 4 devices"]
    return [
        ("train", 64, [*every, "linen, loop"]),
        *(("train", batch_size, every) for batch_size in (16, 256, 1024)),
        *(("sample", batch_size, usual) for batch_size in (64, 512)),
        *(("evaluate", batch_size, usual) for batch_size in (64, 512)),
    ]


def measure(
    processes: list[Process], task: str, batch_size: int, *, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Turn by turn, each for about so many seconds; what each round took."""
    times = {}
    for process in processes:
        process.ask(task, batch_size)
        once = process.ask(task, batch_size, 3)["seconds"] / 3
        times[process.name] = min(200, max(1, round(seconds / once)))
    taken: dict[str, list[float]] = {process.name: [] for process in processes}
    for _ in range(rounds):
        for process in processes:
            answer = process.ask(task, batch_size, times[process.name])
            taken[process.name].append(answer["seconds"] / times[process.name])
    return [
        {"task": task, "batch_size": batch_size, "contestant": name, "seconds": seconds}
        for name, seconds in taken.items()
    ]


def start_up(cache: str) -> dict[str, float]:
    """Seconds from starting Python to the first step's end."""
    with Process(BASE, JAX_COMPILATION_CACHE_DIR=cache) as process:
        ready = process.answer()["ready_seconds"]
        return {"imported": ready, "first_step": process.ask("train", 64)["since_start"]}


def benchmark(quick: bool) -> dict[str, Any]:
    rounds, seconds = (3, 0.3) if quick else (9, 0.7)
    results: dict[str, Any] = {"quick": quick, "missing": [], "facts": {}, "measurements": []}
    with tempfile.TemporaryDirectory() as cache, ExitStack() as stack:
        results["first_start"], results["second_start"] = start_up(cache), start_up(cache)
        if not quick:
            with Process(BASE) as process:
                process.answer()
                results["peak_mib"] = process.ask("whole_run")["peak_mib"]
                results["step_mib"] = [
                    [size, process.ask("step_memory", size)["mib"]] for size in (64, 1024)
                ]
        processes = {}
        for name in dict.fromkeys(name for *_, names in plan(quick) for name in names):
            devices = CONTESTANTS[name][2].get("devices", 1)
            environment = {"XLA_FLAGS": _cpu_devices(devices)} if devices > 1 else {}
            process = Process(name, JAX_COMPILATION_CACHE_DIR=cache, **environment)
            processes[name] = stack.enter_context(process)
        for name, process in list(processes.items()):
            facts = process.answer()
            if "missing" in facts:
                print(f"skipped: {name}: {facts['missing']}", flush=True)
                results["missing"].append(name)
                del processes[name]
            else:
                results["facts"] |= facts["facts"]
        for task, batch_size, names in [("sgemm", SGEMM_SIZE, [BASE]), *plan(quick)]:
            found = measure(
                [processes[name] for name in names if name in processes],
                task,
                batch_size,
                rounds=rounds,
                seconds=seconds,
            )
            results["measurements"] += found
            print(f"measured: {task}, batch of {batch_size}", flush=True)
    return results


def _cpu_devices(count: int) -> str:
    flag = f"--xla_force_host_platform_device_count={count}"
    return f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()


def report(results: dict[str, Any]) -> str:
    """The results in Markdown."""
    rows: dict[tuple[str, int], dict[str, list[float]]] = {}
    for row in results["measurements"]:
        by_contestant = rows.setdefault((row["task"], row["batch_size"]), {})
        by_contestant[row["contestant"]] = row["seconds"]
    sgemm = rows.pop(("sgemm", SGEMM_SIZE))[BASE]
    others = [name for name in CONTESTANTS if any(name in row for row in rows.values())]
    others.remove(BASE)
    lines = [
        "| | images/s | ms | " + " | ".join(f"times as fast as {name}" for name in others) + " |",
        "|---|---:|---:|" + "---:|" * len(others),
    ]
    for (task, batch_size), taken in rows.items():
        median = statistics.median(taken[BASE])
        images = TEST_IMAGES if task == "evaluate" else batch_size
        cells = [f"{task}, batch of {batch_size}", f"{images / median:,.0f}", f"{1e3 * median:.1f}"]
        cells += [_compared(taken[BASE], taken[name]) if name in taken else "" for name in others]
        lines.append("| " + " | ".join(cells) + " |")

    rate = 2 * SGEMM_SIZE**3 / statistics.median(sgemm)
    operations = train_step_flops(Autoencoder((32, 32, 1)), 64)
    step = statistics.median(rows["train", 64][BASE])
    first, second = results["first_start"], results["second_start"]
    facts = ", ".join(f"{name} {value}" for name, value in results["facts"].items())
    lines += [
        "",
        f"- Products of {SGEMM_SIZE}x{SGEMM_SIZE} matrices run at {rate / 1e9:.0f} GFLOP/s. A step "
        f"of 64 images is {operations / 1e9:.2f} GFLOP, counted by hand, so at least "
        f"{1e3 * operations / rate:.1f} ms; it takes {step * rate / operations:.2f} times that.",
        f"- From starting Python, the first step is done after {first['first_step']:.1f} s, or "
        f"{second['first_step']:.1f} s with what an earlier start compiled.",
    ]
    if "peak_mib" in results:
        peak = results["peak_mib"]
        lines.append(f"- A whole run on 60,000 images takes {peak:,.0f} MiB at its peak.")
    if "step_mib" in results:
        (few, small), (many, large) = results["step_mib"]
        lines.append(
            f"- A step of {few} images needs {small:,.0f} MiB beside parameters and optimiser, one "
            f"of {many:,} needs {large:,.0f}: {1024 * (large - small) / (many - few):,.0f} KiB for "
            "each image more."
        )
    state = state_shape(Autoencoder((32, 32, 1)), optax.adam(1e-3))
    state_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    lines.append(
        f"- Parameters, their average and the optimiser's moments are {state_bytes / 2**20:.1f} "
        f"MiB; {TRAIN_IMAGES:,} images are {TRAIN_IMAGES * 32 * 32 / 2**20:.0f}."
    )
    lines += [f"- Skipped: {name}." for name in results["missing"]]
    return "\n".join([*lines, f"- Measured with {facts}."])


def _compared(base: list[float], other: list[float]) -> str:
    """How often the one fits into the other, round by round: the median and the quartiles."""
    ratios = [there / here for here, there in zip(base, other, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    milliseconds = 1e3 * statistics.median(other)
    return f"{middle:.2f} ({low:.2f} to {high:.2f}), {milliseconds:.1f} ms"


def main(config: BenchmarkConfig) -> None:
    results = benchmark(config.quick)
    write_json(Path(config.output), results)
    print(report(results))


if __name__ == "__main__":
    cli.run(main, BenchmarkConfig, description="Time training, sampling and evaluation.")

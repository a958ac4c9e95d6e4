"""Where the time of a training step goes, by XLA's profile of it."""

import gzip
import json
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import jax

from benchmarks.with_jax import JaxImplementation
from jvae_jax.training.provenance import environment

BATCH_SIZE = 64
STEPS = 100
KINDS = {
    "matrix products": r"dot_general$",
    "batch normalisation and ReLU": r"NormReLU",
    "copies and additions of the layers": r"/(Conv|Dense)",
    "the rest, such as sampling, loss and optimizer": "",
}
"""Kinds of operations, by a pattern of the name that JAX gives each; the first that matches."""
_NESTING = ("while", "call", "conditional")
"""Operations that run others, whose time is counted there."""


def kind_of(name: str) -> str:
    """The kind of an operation by its name in JAX, which has the layer and the primitive."""
    return next(kind for kind, pattern in KINDS.items() if re.search(pattern, name))


def names_in_jax(program: str) -> dict[str, str]:
    """Maps each operation of a compiled program, as text, to its name in JAX."""
    return dict(re.findall(r'%?([\w.-]+) = [^\n]*?op_name="([^"]*)"', program))


def measure() -> dict[str, Any]:
    """Profiles training steps of the paper's ``ours``."""
    step, arguments = JaxImplementation(devices=1).step(BATCH_SIZE)
    program = step.lower(*arguments).compile()
    dynamic = arguments[3:]
    jax.block_until_ready(program(*dynamic))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(STEPS):
                jax.block_until_ready(program(*dynamic))
        (trace,) = Path(folder).rglob("*.trace.json.gz")
        with gzip.open(trace) as file:
            events = json.load(file)["traceEvents"]
    names = names_in_jax(program.as_text())
    milliseconds: Counter[str] = Counter()
    for event in events:
        operation = event.get("args", {}).get("hlo_op", "")
        if operation and not operation.startswith(_NESTING):
            milliseconds[kind_of(names.get(operation, ""))] += event["dur"] / 1000 / STEPS
    return {
        "milliseconds": {kind: milliseconds[kind] for kind in KINDS},
        "environment": environment(),
    }


def report(results: dict[str, Any]) -> str:
    """Formats the results in Markdown."""
    total = sum(results["milliseconds"].values())
    lines = ["| operations | ms | share |", "| --- | ---: | ---: |"]
    lines += [
        f"| {kind} | {duration:.1f} | {duration / total:.0%} |"
        for kind, duration in results["milliseconds"].items()
    ]
    current = results["environment"]
    lines += [
        "",
        f"A step of {BATCH_SIZE} images. `python experiments/benchmark.py --measure=profile`; "
        f"commit `{current['commit']}`, jax {current['jax']}, {current['machine']}.",
    ]
    return "\n".join(lines)

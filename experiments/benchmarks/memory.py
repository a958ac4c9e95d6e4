"""Memory of training over the number of images.

Uncompressed .npz files of noise are written, and ``jvae train`` runs on each for a while. Memory is
what the process has allocated: pages of mapped files, which the system takes back when it needs
them, aren't counted. Linux only.
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import numpy as np

from jvae_jax.training.provenance import environment

IMAGES = (10_000, 100_000, 1_000_000, 2_000_000, 10_000_000)
"""Numbers of training images."""
PIXELS = 32 * 32
SECONDS = 30
"""Seconds of training on each."""
_CHUNK = 100_000
_STARTED = " steps (epochs: "
"""Of the line that ``jvae train`` prints before its first step."""


def write_noise(path: Path, count: int) -> None:
    """Writes an uncompressed .npz file of ``count`` training and 1,000 test images of noise."""
    chunk = np.random.default_rng(0).integers(0, 256, (_CHUNK, 32, 32), np.uint8)
    with ZipFile(path, "w", ZIP_STORED) as archive:
        for split, size in (("train", count), ("test", 1000)):
            with archive.open(f"{split}_images.npy", "w", force_zip64=True) as file:
                header = {"descr": "|u1", "fortran_order": False, "shape": (size, 32, 32)}
                np.lib.format.write_array_header_2_0(file, header)
                for start in range(0, size, _CHUNK):
                    file.write(chunk[: size - start].data)
            with archive.open(f"{split}_labels.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.arange(size, dtype=np.int32) % 10)


def allocated_mib(process: int) -> float:
    """Memory that a process has allocated, in MiB; 0 if it has ended."""
    status = Path(f"/proc/{process}/status").read_text()
    allocated = re.search(r"RssAnon:\s+(\d+) kB", status)
    return int(allocated[1]) / 1024 if allocated else 0.0


def peak_mib(count: int, folder: Path, seconds: float = SECONDS) -> tuple[float, float]:
    """Trains on ``count`` images for ``seconds``, in an empty folder.

    Returns:
        The peaks of the allocated memory, in MiB, until the first step and from then on.
    """
    dataset = folder / "noise.npz"
    write_noise(dataset, count)
    # More epochs than there is time for, without checkpoints and samples.
    options = [f"--dataset={dataset}", "--epochs=10000", "--save_every=10000"]
    command = [sys.executable, "-m", "jvae_jax", "train", *options, f"--workdir={folder / 'run'}"]
    log = folder / "log"
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    before = during = 0.0
    started: float | None = None
    try:
        while started is None or time.monotonic() - started < seconds:
            if process.poll() is not None:
                raise RuntimeError(f"jvae train ended early:\n{log.read_text()}")
            allocated = allocated_mib(process.pid)
            if started is not None:
                during = max(during, allocated)
            else:
                before = max(before, allocated)
                started = time.monotonic() if _STARTED in log.read_text() else None
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    return before, during


def measure() -> dict[str, Any]:
    """Measures the peaks for each number of images."""
    peaks = []
    for count in IMAGES:
        with tempfile.TemporaryDirectory() as folder:
            peaks.append([count, *peak_mib(count, Path(folder))])
        print(f"measured: memory of {count:,} images", flush=True)
    return {"peaks": peaks, "environment": environment()}


def report(results: dict[str, Any]) -> str:
    """Formats the results in Markdown."""
    lines = [
        "| training images | their size (MiB) | peak before training (MiB) | training (MiB) |",
        "| ---: | ---: | ---: | ---: |",
    ]
    for count, before, during in results["peaks"]:
        size = count * PIXELS / 2**20
        lines.append(f"| {count:,} | {size:,.0f} | {before:,.0f} | {during:,.0f} |")
    current = results["environment"]
    lines += [
        "",
        f"`python experiments/benchmark.py --measure=memory --readme`; commit "
        f"`{current['commit']}`, jax {current['jax']}, {current['machine']}.",
    ]
    return "\n".join(lines)

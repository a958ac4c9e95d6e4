"""Memory of training over the number of images.

Uncompressed .npz files of noise are written, and ``jvae train`` runs on each for some steps, less
than an epoch. Memory is what the process has allocated: pages of mapped files, which the system
takes back when it needs them, aren't counted. Linux only.
"""

import os
import re
import select
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import numpy as np

from jvae_jax.training.provenance import environment

IMAGES = (100_000, 1_000_000, 2_000_000, 10_000_000)
"""Numbers of training images."""
PIXELS = 32 * 32
TRAINED_IMAGES = 20_000
"""Least number of images trained on: 4 dispatches of 100 steps."""
_CHUNK = 100_000
_STARTED = " steps (epochs: "
"""Of the line that ``jvae train`` prints before its first step."""
_PROGRESS = re.compile(r"\| ([\d.]+)([kM]?)/\S+ \[")
"""The number of images in its progress bar."""


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


def trained_images(output: str) -> float:
    """Number of images that ``jvae train`` has trained on, by the progress bar in its output."""
    number, unit = (_PROGRESS.findall(output) or [("0", "")])[-1]
    return float(number) * {"": 1, "k": 1e3, "M": 1e6}[unit]


def peak_mib(count: int, folder: Path) -> tuple[float, float]:
    """Trains on ``count`` images, until ``TRAINED_IMAGES`` have been used.

    Args:
        count: number of images in the data.
        folder: an empty folder.

    Returns:
        The peaks of the allocated memory, in MiB, until the first step and from then on.

    Raises:
        RuntimeError: if the training ended earlier.
    """
    import pty  # Windows has neither
    import termios

    dataset = folder / "noise.npz"
    write_noise(dataset, count)
    options = [f"--dataset={dataset}", f"--workdir={folder / 'run'}"]
    main, terminal = pty.openpty()  # on which there is a progress bar, if it has a size
    termios.tcsetwinsize(terminal, (24, 200))
    process = subprocess.Popen(
        [sys.executable, "-m", "jvae_jax", "train", *options], stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    before = during = 0.0
    output = ""
    try:
        while trained_images(output) < TRAINED_IMAGES:
            if select.select([main], [], [], 0.05)[0]:
                try:
                    output += os.read(main, 1 << 16).decode(errors="replace")
                except OSError as error:  # the process closed the terminal
                    raise RuntimeError(f"jvae train ended early:\n{output}") from error
            if _STARTED in output:
                during = max(during, allocated_mib(process.pid))
            else:
                before = max(before, allocated_mib(process.pid))
    finally:
        process.kill()
        process.wait()
        os.close(main)
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
        f"`python experiments/benchmark.py --measure=memory`; commit "
        f"`{current['commit']}`, jax {current['jax']}, {current['machine']}.",
    ]
    return "\n".join(lines)

"""Where numbers come from."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import jax


def environment() -> dict[str, Any]:
    """Where numbers come from: versions, devices, machine and, in a git checkout, the commit."""
    packages = ("jvae_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in packages},
        "devices": [device.device_kind for device in jax.devices()],
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
        + _processor(),
    }


def _processor() -> str:
    """The processor's name behind a comma, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f", {names[0]}" if names else ""


def _commit() -> str | None:
    """The commit of the checkout that this package lies in, marked if it has changes."""
    package = Path(__file__).parent
    try:
        top = _git("rev-parse", "--show-toplevel", cwd=package)
        if not (Path(top) / "jvae_jax" / Path(__file__).name).exists():
            return None
        return _git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*", cwd=package)
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str, cwd: Path) -> str:
    shown = subprocess.run(
        ["git", *arguments], capture_output=True, text=True, timeout=10, check=True, cwd=cwd
    )
    return shown.stdout.strip()

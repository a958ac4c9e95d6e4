"""Provenance of results: versions, devices, machine and commit."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

_PACKAGES = (
    "jvae_jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "scikit-learn",
)


def environment() -> dict[str, Any]:
    """Returns versions, devices, the machine and, in a git checkout, the commit."""
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in _PACKAGES},
        "devices": [device.device_kind for device in jax.devices()],
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
        + _processor(),
    }


def _processor() -> str:
    """Returns the processor's model name after a comma, if Linux reports one."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f", {names[0]}" if names else ""


def _commit() -> str | None:
    """Returns the commit of the checkout that contains this package, marked if it is modified."""
    package = Path(__file__).resolve().parents[1]
    try:
        top = _git("rev-parse", "--show-toplevel", cwd=package)
        # An environment may lie within a checkout of something else.
        if Path(top) / "jvae_jax" != package:
            return None
        return _git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*", cwd=package)
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str, cwd: Path) -> str:
    completed = subprocess.run(
        ["git", *arguments], capture_output=True, timeout=10, check=True, cwd=cwd
    )
    # Paths are not always text of the locale.
    return os.fsdecode(completed.stdout).strip()

"""Provenance of results: versions, devices, machine and commit."""

import os
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from jvae_jax.types import Devices

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
_COMPILER_FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE")
"""Environment variables that change compiled programs."""
_JAX_OPTIONS = (
    "jax_allow_f16_reductions",
    "jax_compiler_enable_remat_pass",
    "jax_cpu_collectives_implementation",
    "jax_default_matmul_precision",
    "jax_disable_jit",
    "jax_disable_most_optimizations",
    "jax_exec_time_optimization_effort",
    "jax_high_dynamic_range_gumbel",
    "jax_memory_fitting_effort",
    "jax_memory_fitting_level",
    "jax_optimization_level",
    "jax_random_seed_offset",
    "jax_softmax_custom_jvp",
    "jax_use_direct_linearize",
)
"""Options of JAX that change results and that training doesn't set itself; some versions of JAX
lack some."""
_NUMERICS = (
    "commit",
    "jvae_jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "devices",
    "platform_version",
    *_COMPILER_FLAGS,
    *_JAX_OPTIONS,
)


def environment(devices: Devices | None = None) -> dict[str, Any]:
    """Returns versions, devices, the machine, compiler settings and, in a checkout, the commit.

    Args:
        devices: devices that are used; default: all devices of all processes.
    """
    devices = jax.devices() if devices is None else devices
    options = jax.config.values
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in _PACKAGES},
        "devices": [device.device_kind for device in devices],
        "platform_version": " ".join(devices[0].client.platform_version.split()),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
        + _processor(),
        **{name: _compiler_flags(os.environ.get(name, "")) for name in _COMPILER_FLAGS},
        **{name: str(options[name]) for name in _JAX_OPTIONS if name in options},
    }


def numeric_environment(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Selects what decides the last bits of a result, beside the configuration and the data.

    Args:
        environment: what :func:`environment` returned, now or in an earlier version.

    Returns:
        The entries that are known.
    """
    known = {name: environment[name] for name in _NUMERICS if environment.get(name) is not None}
    if "devices" in known:
        counts = Counter(known["devices"])
        known["devices"] = ", ".join(f"{count} x {kind}" for kind, count in counts.items())
        if "cpu" in counts and "machine" in environment:
            known["machine"] = environment["machine"]
    return known


def _compiler_flags(flags: str) -> str:
    """Drops flags that don't change results: paths, dumps and the number of the CPU's devices."""
    return " ".join(
        flag
        for flag in flags.split()
        if "/" not in flag
        and not flag.startswith(("--xla_dump", "--xla_force_host_platform_device_count"))
    )


def _processor() -> str:
    """Returns the processor's model name after a comma, if Linux reports one."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f", {names[0]}" if names else ""


@cache  # the checkout may change during the process, but its code doesn't
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

"""Refusal of requests that exceed the machine's memory, before anything is allocated."""

import contextlib
import functools
import os
from pathlib import Path

LARGE_BYTES = 1 << 30
"""Bytes above which an array is memory-mapped, if it can be, and isn't copied to every device."""
_CONTROL_GROUP_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)
"""Files of the limit in Linux's control groups, versions 2 and 1."""


@functools.cache
def memory_limit() -> int | None:
    """Returns the bytes of physical memory, or the control group's limit if that is lower.

    None if unknown, as on Windows.
    """
    try:
        limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
    for path in _CONTROL_GROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no such group, or "max"
            limit = min(limit, int(Path(path).read_text()))
    return limit


def require_memory(required: int, purpose: str) -> None:
    """Raises ValueError if more memory is required than the machine has.

    Allocating too much ends in an abort of XLA or in the kernel's kill, which no caller can report.
    Memory that is in use isn't subtracted: the bound rejects what can't succeed.

    Args:
        required: estimate, in bytes.
        purpose: what requires it, for the message.
    """
    limit = memory_limit()
    if limit is not None and required > limit:
        raise ValueError(
            f"{purpose} needs about {_gib(required)} of memory, more than this machine's "
            f"{_gib(limit)}"
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"

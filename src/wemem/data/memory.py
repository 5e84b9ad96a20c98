"""How much memory a data set may take, decided before any of it is read."""

import os
from pathlib import Path

from wemem.errors import InputError

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")  # what a container may use; "max" where it has no limit
UNKNOWN_MACHINE = 8 * 2**30


def machine_memory() -> int:
    """Bytes of RAM that this process can hope for: the machine's, or its container's if that is less."""
    total = UNKNOWN_MACHINE
    if hasattr(os, "sysconf"):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(total, int(CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):
        return total


def memory_limit(gib: float | None) -> int:
    """Bytes that loading a data set may take.

    Args:
        gib: the limit in GiB; half of the machine's memory if None.

    Raises:
        InputError: not positive.

    >>> memory_limit(0.5) == 2**29
    True
    """
    if gib is None:
        return machine_memory() // 2
    if not 0 < gib < float("inf"):
        raise InputError(f"memory_gib must be positive and finite, got {gib}; leave it out for half of the machine's")
    return int(gib * 2**30)


def require_memory(need: int, limit: int, what: str) -> None:
    """Refuse what would not fit.

    Args:
        need: bytes.
        limit: bytes.
        what: the file, for the message.

    Raises:
        InputError: ``need`` is more than ``limit``.
    """
    if need > limit:
        raise InputError(
            f"{what}: expected data that fit into {limit / 2**30:.3g} GiB, got {need / 2**30:.3g} GiB; "
            "give fewer records, or raise memory_gib"
        )

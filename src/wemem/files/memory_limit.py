"""How much memory there is, and how much of it a data set may take, decided before any of it is read."""

import os
from collections.abc import Iterator
from pathlib import Path

from wemem.errors import InputError

#: Where Linux tells what groups of processes may use, and of which groups this process is.
CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
UNKNOWN_MACHINE = 8 * 2**30
MOST_GIB = 2**20


def machine_memory() -> int:
    """Bytes of RAM that this process can hope for: the machine's, or its container's if that is less."""
    total = UNKNOWN_MACHINE
    if hasattr(os, "sysconf"):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([total, *_cgroup_limits()])


def _cgroup_limits() -> Iterator[int]:
    """Bytes that this process's groups may use, and the groups around them; those without a limit say none."""
    try:
        groups = [line.split(":", 2) for line in OWN_CGROUPS.read_text().splitlines()]
    except OSError:
        return
    # version 2 is one hierarchy and names no controllers; a container may see its own group as the root
    for _, controllers, group in groups:
        if controllers and "memory" not in controllers.split(","):
            continue
        root, name = (CGROUPS / "memory", "memory.limit_in_bytes") if controllers else (CGROUPS, "memory.max")
        for folder in dict.fromkeys((Path(group), *Path(group).parents)):
            try:
                yield int((root / folder.relative_to("/") / name).read_text())
            except (OSError, ValueError):  # no such group here, or "max"
                continue


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
    if not 0 < gib <= MOST_GIB:
        raise InputError(
            f"memory_gib must be positive and at most {MOST_GIB:,}, got {gib}; leave it out for half of the machine's"
        )
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

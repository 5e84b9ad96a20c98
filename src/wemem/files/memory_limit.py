"""The memory of the machine, and the share of it that a data set may take, checked before it is
read.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from wemem.errors import InputError

#: Files of Linux with the limits of process groups, and with the groups of this process.
CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
UNKNOWN_MACHINE = 8 * 2**30
MOST_GIB = 2**20


def machine_memory() -> int:
    """Bytes of memory that this process can get: the machine's, or its container's if that is less."""
    total = UNKNOWN_MACHINE
    if hasattr(os, "sysconf"):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([total, *_cgroup_limits()])


def _cgroup_limits() -> Iterator[int]:
    """Limits in bytes of the groups of this process and of those around them; groups without a
    limit are left out.
    """
    try:
        groups = [line.split(":", 2) for line in OWN_CGROUPS.read_text().splitlines()]
    except OSError:
        return
    # Version 2 is one hierarchy and names no controllers; a container may see its group as the
    # root.
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
    """The largest number of bytes that loading a data set may take.

    Args:
        gib: the limit in GiB; None means half of the machine's memory.

    Raises:
        InputError: a limit that is not positive and finite.

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
    """Refuse data that would not fit into memory.

    Args:
        need: the number of bytes that the data take.
        limit: the largest number of bytes that they may take.
        what: the file or data set, for the message.

    Raises:
        InputError: ``need`` is more than ``limit``.
    """
    if need > limit:
        raise InputError(
            f"{what}: expected data that fit into {limit / 2**30:.3g} GiB, got {need / 2**30:.3g} GiB; "
            "give fewer records, or raise memory_gib"
        )

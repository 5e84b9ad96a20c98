"""Locks on open files between processes, where the system has them.

They are those of POSIX, which the system lets go of however a process ends. Windows has none of
them, and neither have some network file systems; there nothing is locked.
"""

try:
    import fcntl
except ImportError:  # Windows
    LOCKS = False
else:
    LOCKS = True


def wait_for_lock(descriptor: int) -> None:
    """Wait until no other process has locked a file, and lock it."""
    if LOCKS:
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def try_lock(descriptor: int) -> None:
    """Lock a file.

    Raises:
        BlockingIOError: another process has locked it.
        OSError: the file system has no locks.
    """
    if LOCKS:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def share_lock(descriptor: int) -> None:
    """Lock a file against :func:`try_lock`, beside others that share it.

    Raises:
        OSError: the file system has no locks.
    """
    if LOCKS:
        fcntl.flock(descriptor, fcntl.LOCK_SH)


def try_lock_byte(descriptor: int, number: int) -> None:
    """Lock one byte of a file, which need not exist.

    Raises:
        OSError: another process has locked it, or the file system has no locks.
    """
    if LOCKS:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)

"""The most memory that this process has held since it was last asked; Linux tells, other systems do not."""

from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak() -> bool:
    """Start to measure anew, from what is held now.

    Returns:
        Whether the system can.
    """
    try:
        CLEAR.write_text("5")  # proc(5): resets the peak resident set size
    except OSError:
        return False
    return True


def peak_mib() -> float | None:
    """The largest resident set since :func:`reset_peak`, in MiB, of the whole process; None where nobody tells."""
    try:
        lines = STATUS.read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return None

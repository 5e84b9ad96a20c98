"""The peak memory of this process, which Linux reports and other systems do not."""

from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak() -> bool:
    """Start to measure anew, from the memory in use now.

    Returns:
        True if the system can measure it.
    """
    try:
        CLEAR.write_text("5")  # proc(5): resets the peak resident set size
    except OSError:
        return False
    return True


def peak_mib() -> float | None:
    """Largest resident set of the process since :func:`reset_peak`, in MiB; None if unknown."""
    try:
        lines = STATUS.read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return None

"""How long the command line takes to start: wall and processor time in seconds, medians of ten.

Goals: ``wemem --help`` under 0.3 s, ``wemem gate`` under 1 s, also for 15 runs with 28 attacks each.
The commands take turns, so that other work on the machine slows all of them alike.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from bound_results import bound_folder

REPEATS = 10


def seconds(*arguments: str) -> tuple[float, float]:
    """The wall time and the processor time of a Python process."""
    began, used = time.perf_counter(), processor_seconds()
    done = subprocess.run([sys.executable, *arguments], check=False, capture_output=True, text=True)
    if done.returncode not in (0, 1):  # 1: a limit or a reservation failed
        raise SystemExit(done.stderr)
    return time.perf_counter() - began, processor_seconds() - used


def processor_seconds() -> float:
    """User and system time of all processes that this one has waited for."""
    times = os.times()
    return times.children_user + times.children_system


def large_folder(folder: Path) -> Path:
    """Results as large as a comparison gives them: five arms, three seeds, 28 attacks, 17 targets, altered answers."""
    attacks = tuple(f"attack_{i}" for i in range(28))
    arms = {"dense": 0.5, "undefended": 1.0, "rsw": 0.0, "swmr": 0.0, "hamp": 0.5}
    return bound_folder(
        folder, arms, seeds=(0, 1, 2), members=751, nonmembers=1504, attacks=attacks, altered=True, targets=17
    )  # fmt: skip


def main() -> None:
    with tempfile.TemporaryDirectory() as top:
        small, large = bound_folder(Path(top) / "small"), large_folder(Path(top) / "large")
        commands = {
            "python -c pass": ["-c", "pass"],
            "import wemem": ["-c", "import wemem"],
            "wemem --version": ["-m", "wemem", "--version"],
            "wemem --help": ["-m", "wemem", "--help"],
            "wemem gate, 3 runs of 3 attacks": ["-m", "wemem", "gate", str(small), "--max-tpr", "0.9"],
            "wemem gate, 15 runs of 28 attacks": ["-m", "wemem", "gate", str(large), "--max-tpr", "0.9"],
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(REPEATS):
            for name, arguments in commands.items():
                times[name].append(seconds(*arguments))
        print(f"{'command':<34}{'wall':>8}{'processor':>11}")
        for name, taken in times.items():
            wall, used = (statistics.median(one) for one in zip(*taken, strict=True))
            print(f"{name:<34}{wall:8.3f}{used:11.3f}")


if __name__ == "__main__":
    main()

"""How long the command line takes to start, as ratios to ``python -c pass`` and in seconds (medians of ten).

Goals: ``wemem --help`` under 0.3 s, ``wemem gate`` under 1 s.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from bound_results import bound_folder

REPEATS = 10


def seconds(*arguments: str) -> float:
    """The median time of a Python process."""
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        bound_folder(Path(folder))
        gate = ["-m", "wemem", "gate", folder, "--max-tpr", "0.9"]
        commands = {
            "python -c pass": ["-c", "pass"],
            "import wemem": ["-c", "import wemem"],
            "wemem --version": ["-m", "wemem", "--version"],
            "wemem --help": ["-m", "wemem", "--help"],
            "wemem gate": gate,
        }
        base = seconds("-c", "pass")
        print(f"{'command':<18}{'seconds':>9}{'ratio':>8}")
        for name, arguments in commands.items():
            taken = seconds(*arguments)
            print(f"{name:<18}{taken:9.3f}{taken / base:8.1f}")


if __name__ == "__main__":
    main()

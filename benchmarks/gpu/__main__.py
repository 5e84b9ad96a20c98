"""Measure this library on a GPU, in order of worth, within a given time.

    PYTHONPATH=src python -m benchmarks.gpu --minutes 8 --out results --study cifar10 studies/cifar10.toml

It needs no network. WEMEM_DATA names the folder with the data of the studies. Every group of
measurements runs in a process of its own, so that a failure of the driver ends only that group, and
the files are written after every measurement: ``gpu.json`` with everything, ``gpu.md`` with tables.
With ``--dry-run`` all of it runs on the CPU at tiny sizes, where the figures mean nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from benchmarks.gpu.record import Record

#: The groups in order of worth, and the share of the remaining time that each may take at most. First
#: the rate and the forecast of the first study, then what earlier calls left open: repeated bytes of
#: ResNet-8, convolutions of all models at once, and several processes on the device.
GROUPS = {
    "forecast": 0.2, "repeated-bytes": 0.1, "at-once": 0.15, "jobs": 0.2, "correctness": 0.3, "speed": 0.6,
    "studies": 1.0,
}  # fmt: skip


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="the time for everything")
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="the folder for the results")
    parser.add_argument("--scratch", type=Path, default=Path("gpu-scratch"), help="the folder for the store of studies")
    parser.add_argument("--study", type=Path, action="append", default=[], help="a study file; several are run in turn")
    parser.add_argument("--set", action="append", default=[], help="key=value, for every study")
    parser.add_argument("--groups", default=",".join(GROUPS), help="the groups to run")
    parser.add_argument("--only", default="", help="a regular expression; measurements of other names are left out")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--group", help=argparse.SUPPRESS)  # the process of one group
    parser.add_argument("--deadline", type=float, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> None:
    given = parse()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.group:
        run_group(given)
    else:
        run_groups(given)


def run_groups(given: argparse.Namespace) -> None:
    """Let the groups measure in turn; while one does, the next one loads its libraries."""
    end = time.time() + 60 * given.minutes
    groups = given.groups.split(",")
    following = start(groups[0])
    for i, group in enumerate(groups):
        process, left = following, end - time.time()
        if i + 1 < len(groups):
            following = start(groups[i + 1])
        deadline = time.time() + left * (1.0 if i == len(groups) - 1 else GROUPS[group])
        try:
            process.communicate(f"{deadline}\n", timeout=max(1.0, deadline + 20 - time.time()))
        except (subprocess.TimeoutExpired, BrokenPipeError):
            process.kill()
            process.wait()
        print(f"== {group}: exit {process.returncode}, {end - time.time():.0f} s left", flush=True)
        join(given.out, groups)


def start(group: str) -> subprocess.Popen[str]:
    """Start the process of a group, which waits for its deadline."""
    command = [sys.executable, "-m", "benchmarks.gpu", *sys.argv[1:], "--group", group, "--deadline", "0"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, text=True)


def join(out: Path, groups: list[str]) -> None:
    """Write one JSON file and one Markdown page from the files of the groups."""
    from benchmarks.gpu.record import markdown

    rows = [
        {"group": group, **row}
        for group in groups if (file := out / f"{group}.json").exists() for row in json.loads(file.read_text())
    ]  # fmt: skip
    (out / "gpu.json").write_text(json.dumps(rows, indent=1))
    (out / "gpu.md").write_text(markdown(rows))


def run_group(given: argparse.Namespace) -> None:
    """Load everything, wait for a line with the deadline, and measure."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    from benchmarks.gpu.correctness import measure_correctness, measure_repeated_bytes
    from benchmarks.gpu.record import Record
    from benchmarks.gpu.speed import measure_speed, plan, unsettled
    from benchmarks.gpu.studies import JobsTable
    from wemem.training import choose_device

    device = choose_device("cpu" if given.dry_run else given.device)
    if device.type == "cuda":
        torch.zeros(1, device=device)
    record = Record(given.out / f"{given.group}.json", float(sys.stdin.readline()), given.only)
    tiny = given.dry_run
    match given.group:
        case "forecast":
            measure_studies(record, device, given, given.study[:1])
        case "repeated-bytes":
            measure_repeated_bytes(record, device)
        case "at-once":
            measure_speed(record, device, unsettled(tiny=tiny), tiny=tiny)
        case "jobs":
            table = JobsTable(Path("studies/smoke.toml" if tiny else "studies/quickstart.toml"), device)
            for jobs in (1, 2) if tiny else (1, 2, 4):
                record.measure("jobs", f"{jobs} jobs", partial(table.run, jobs), needs=5 if tiny else 15)
        case "correctness":
            measure_correctness(record, device)
        case "speed":
            measure_speed(record, device, plan(tiny=tiny), tiny=tiny)
        case _:
            measure_studies(record, device, given, given.study)


def measure_studies(
    record: "Record", device: "torch.device", given: argparse.Namespace, studies: Sequence[Path]
) -> None:  # fmt: skip
    """Run studies, each for its share of the time; what one call has computed, a later one finds in the store."""
    from benchmarks.gpu.studies import Task, run_study

    for i, path in enumerate(studies):
        task = Task(path, given.set, record.left / (len(studies) - i))
        store = given.scratch / "store"
        record.measure("study", path.stem, partial(run_study, record, task, device, given.out, store))


if __name__ == "__main__":
    main()

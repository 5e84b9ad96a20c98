"""The forecast of ``wemem plan`` against real runs: processor time, wall time, and the share in which workers compute.

    python benchmarks/plan_forecast.py [STUDY.toml [JOBS...]]

Trainings that stop early run as long as they run; the forecast expects 21 epochs of them. Other programs stretch
wall times, but hardly the processor time or the share of it in which workers compute, which they stretch as well.
"""

import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from wemem import api
from wemem.execution.plan import make_plan, planned_phases
from wemem.execution.trial import measured_rates
from wemem.pipeline.loading import load_data
from wemem.pipeline.progress import Silent
from wemem.results.wording import duration
from wemem.store.store import Store


class Computing(Silent):
    """The seconds in which workers compute."""

    def __init__(self) -> None:
        self.seconds = self._began = 0.0
        self.workers: list[Computing] = []

    def worker(self, number: int, workers: int) -> "Computing":
        self.workers.append(Computing())
        return self.workers[-1]

    def begin(self, stage: str, work: float) -> None:
        self._began = time.perf_counter()

    def end(self, *, stored: bool) -> None:
        self.seconds += time.perf_counter() - self._began


def main() -> None:
    torch.set_num_threads(1)
    config = api.read_study(Path(*sys.argv[1:2] or ["studies/quickstart.toml"]))
    jobs = [int(one) for one in sys.argv[2:]] or [1]
    data, began = load_data(config, Silent()), time.perf_counter()
    with TemporaryDirectory() as empty:
        phases = planned_phases(config, data, Store(empty))
    plan = make_plan(config, phases, measured_rates(config, data, Silent()), 1, jobs)
    print(f"planned in {duration(time.perf_counter() - began)}: {plan.tasks:,} tasks; {os.getloadavg()[0]:.0f} in line")
    for workers in jobs:
        progress = Computing()
        with TemporaryDirectory() as folder:
            began, used = time.perf_counter(), processor_time()
            api.run(config, Path(folder, "out"), Path(folder, "store"), progress, jobs=workers, threads=1)
            wall, own = time.perf_counter() - began, processor_time() - used
            written = sum(path.stat().st_size for path in Path(folder, "store").rglob("*") if path.is_file())
        shares = sum(one.seconds for one in progress.workers or [progress]) / (workers * wall)
        print(f"{workers} workers: {duration(own)} of processors, forecast {duration(plan.seconds)};", end=" ")
        print(f"{duration(wall)} of wall time, forecast {duration(plan.wall[workers])};", end=" ")
        print(f"computing {100 * shares:.0f} %, forecast {100 * plan.seconds / (workers * plan.wall[workers]):.0f} %")
        print(f"written {written / 1e6:.1f} MB; forecast {plan.bytes / 1e6:.1f} MB")


def processor_time() -> float:
    """Seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


if __name__ == "__main__":
    main()

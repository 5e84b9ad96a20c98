"""The forecast of ``wemem plan`` against real runs: processor time, and wall time by number of workers.

    python benchmarks/plan_forecast.py [STUDY.toml [JOBS...]]

Trainings that stop early run as long as they run; the forecast expects 21 epochs of them.
"""

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from wemem import api
from wemem.pipeline.progress import Silent
from wemem.results.wording import duration


def main() -> None:
    study, jobs = Path(*sys.argv[1:2] or ["studies/quickstart.toml"]), [int(one) for one in sys.argv[2:]] or [1]
    began = time.perf_counter()
    plan = api.plan(study, None, Silent())
    took = duration(time.perf_counter() - began)
    print(f"planned in {took}: {plan.tasks:,} tasks, {duration(plan.seconds)} of one core")
    for workers in jobs:
        with TemporaryDirectory() as folder:
            began, used = time.perf_counter(), time.process_time()
            api.run(study, Path(folder, "out"), Path(folder, "store"), jobs=workers, threads=1)
            wall, own = time.perf_counter() - began, time.process_time() - used
            written = sum(path.stat().st_size for path in Path(folder, "store").rglob("*") if path.is_file())
        cores = f", {duration(own)} of a core" if workers == 1 else ""
        forecast = duration(plan.wall.get(workers, plan.seconds / workers))
        print(f"{workers} workers: {duration(wall)}{cores}; forecast {forecast}")
        print(f"written {written / 1e6:.1f} MB; forecast {plan.bytes / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

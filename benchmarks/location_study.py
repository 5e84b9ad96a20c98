"""The Location study stage by stage: where the time goes, and what it takes of memory.

    python benchmarks/location_study.py [--threads 2] [--set KEY=VALUE ...]

Runs studies/location.toml into an empty store, so that every stage is computed. WEMEM_DATA names the data.
"""

import argparse
import re
import resource
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import torch

from wemem import api
from wemem.api import read_study

STUDY = Path(__file__).parents[1] / "studies" / "location.toml"


class StopWatch:
    """Adds up the wall time of each kind of stage."""

    def __init__(self):
        self.seconds = defaultdict(float)

    def plan(self, work):
        pass

    def begin(self, stage, work):
        self.kind, self.start = kind_of(stage), time.perf_counter()

    def advance(self, fraction, detail):
        pass

    def end(self, *, stored):
        self.seconds[self.kind] += time.perf_counter() - self.start

    def tell(self, message):
        print(message)

    def warn(self, message):
        print(message)


def kind_of(stage):
    for kind, pattern in (
        ("train scoring models", "subset models"),
        ("train dense reference models", "dense references"),
        ("train dense models", "dense"),
        ("prune reference models", "^prune references"),
        ("prune victim and shadows", "^prune"),
        ("query models", "^query"),
        ("estimate scores", "scores"),
    ):
        if re.search(pattern, stage) and " on " not in stage:
            return kind
    return f"attack {stage.split(' on ')[0]}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    watch, start = StopWatch(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        api.run(read_study(STUDY, arguments.overrides), Path(folder) / "out", progress=watch)
    total = time.perf_counter() - start
    for kind, seconds in sorted(watch.seconds.items(), key=lambda item: -item[1]):
        print(f"{kind:32s} {seconds:7.1f} s {100 * seconds / total:5.1f} %")
    steps = sum(s for kind, s in watch.seconds.items() if kind.startswith(("train", "prune")))
    print(f"{'the rest':32s} {total - sum(watch.seconds.values()):7.1f} s")
    print(
        f"total {total:.1f} s, {100 * steps / total:.0f} % in training and pruning, {arguments.threads} threads,",
        end=" ",
    )
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()

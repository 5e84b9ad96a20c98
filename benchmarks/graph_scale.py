"""The task graph of 1,000 reference models, 12 defenses and 5 seeds: time and memory of the driver.

    python benchmarks/graph_scale.py [REFERENCES] [SEEDS] [--ray N]

Nothing is trained. The graph is built with the keys of a real study, looked up in an empty store and
in one that has everything, and scheduled with tasks that do nothing. With --ray, N tasks that do
nothing also go through a Ray of this machine, with the payload of a real task.
"""

import json
import resource
import sys
import time
from dataclasses import replace
from tempfile import TemporaryDirectory

import numpy as np

from wemem.config.parse import parse_study
from wemem.data.dataset import Dataset
from wemem.execution.graph import Frontier, phase_graph
from wemem.execution.plan import simulated_time
from wemem.execution.program import Phase, StudyProgram
from wemem.execution.worker import task_message
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Silent
from wemem.store.store import Store
from wemem.study.groups import arm_groups

KINDS = ("undefended", "rsw", "rmr", "swmr", "ppb", "advreg", "relaxloss", "hamp", "label_smoothing", "early_stopping")
OOSD = ({"kind": "oosd", "teachers": 10, "label": f"oosd-{hard}", "hard": hard} for hard in (0.0, 0.2))


def memory() -> float:
    """The peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    given = [int(one) for one in sys.argv[1:] if one.isdigit()]
    references, seeds = [*given, *(1000, 5)[len(given) :]][:2]
    rng = np.random.default_rng(0)
    labels = np.arange(1200) % 3
    data = Dataset("synthetic", rng.normal(size=(1200, 8)).astype(np.float32), labels, classes=3)
    study = {
        "data": {"source": "digits"}, "model": {"kind": "fc", "hidden": [16]}, "seeds": list(range(seeds)),
        "split": {"shadows": 4, "references": references}, "attacks": ["confidence", "lira", "rmia"],
        "defenses": [*KINDS, *OOSD], "controls": [],
    }  # fmt: skip
    config, before = parse_study(study), memory()
    with TemporaryDirectory() as folder:
        store = Store(folder)
        pipeline = Pipeline.open(replace(config, table={}), data, store, Silent())
        began = time.perf_counter()
        graph = phase_graph(Phase(StudyProgram(config), tuple(arm_groups(config, searched=False))), pipeline)
        built = time.perf_counter() - began
        keys = [key for node in graph.nodes for key in node.stores]
        began = time.perf_counter()
        run = graph.missing(store.present(keys))
        looked = time.perf_counter() - began
    began = time.perf_counter()
    everything_stored = graph.missing(frozenset(keys))
    nothing = time.perf_counter() - began
    began, frontier = time.perf_counter(), Frontier(graph, run)
    while (number := frontier.take()) is not None:
        frontier.done(number)
    scheduled = time.perf_counter() - began
    edges = sum(len(node.after) for node in graph.nodes)
    print(f"{references:,} references, 12 defenses, {seeds} seeds: {len(graph):,} tasks, {edges:,} edges")
    print(f"built in {built:.1f} s, {1e3 * built / len(graph):.2f} ms a task; {memory() - before:.0f} MiB of memory")
    left = f"{len(everything_stored)} are left where all is stored, {nothing:.2f} s"
    print(f"looked up in an empty folder in {looked:.2f} s; {left}")
    print(f"scheduled in {scheduled:.2f} s, {1e6 * scheduled / len(graph):.0f} microseconds a task")
    times = [1.0] * len(graph)
    walls = [(n, simulated_time(graph, run, times, n)) for n in (1, 8, 64, 512)]
    shown = "; ".join(f"{n:,}: {wall:,.0f} s, {len(graph) / wall:.1f}-fold" for n, wall in walls)
    print(f"tasks of 1 s each on workers: {shown}")
    if "--ray" in sys.argv:
        on_ray(int(sys.argv[sys.argv.index("--ray") + 1]), json.dumps(task_message(graph.nodes[-1])), json.dumps(study))


def on_ray(tasks: int, message: str, setup: str) -> None:
    """The time that a task which does nothing takes on a Ray of this machine."""
    import ray

    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    nothing = ray.remote(lambda setup, task: task)
    ray.get([nothing.remote(setup, message) for _ in range(100)])
    began, flying, left = time.perf_counter(), [], tasks
    while left or flying:
        while left and len(flying) < 16:
            flying.append(nothing.remote(setup, message))
            left -= 1
        done, flying = ray.wait(flying, num_returns=1, timeout=0.2)
        ray.get(done)
    each = (time.perf_counter() - began) / tasks
    print(f"{tasks:,} tasks that do nothing on Ray: {1e3 * each:.2f} ms each")
    ray.shutdown()


if __name__ == "__main__":
    main()

"""Rates of a study's tasks on this machine, from two small trials of the study itself.

A trial has one seed, few records and epochs, and otherwise every arm and attack of the study. The
time of a task is taken as a constant and a part that grows with its amount of work; two trials of
different size give both, for each kind of task.
"""

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory

import numpy as np
import torch
from scipy.optimize import nnls

from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.data.split import stratified_draw
from wemem.defenses import Undefended
from wemem.execution.graph import Graph, Node, find_task, phase_graph
from wemem.execution.program import Phase, StudyProgram
from wemem.pipeline.cost import CHUNK
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Progress, Silent
from wemem.randomness import generator
from wemem.store.store import Store
from wemem.study.groups import arm_groups

#: Most records of the larger trial, and fewest of each class.
MOST, FEWEST = 2000, 12
#: Records that a trial may show in all, per second that one model takes for a thousand of them.
SECONDS = 60.0
#: Seconds below which times do not count more.
LEAST = 0.005


@dataclass(frozen=True)
class Rate:
    """The time and the output of one kind of task.

    Args:
        start: seconds that every task takes.
        each: seconds for one unit of its amount.
        bytes_each: bytes that it writes for one unit: a model that is trained, or else of its
            amount.
    """

    start: float
    each: float
    bytes_each: float

    def seconds(self, node: Node) -> float:
        """The expected time of a task."""
        return self.start + self.each * node.effort.amount

    def bytes(self, node: Node) -> float:
        """The expected bytes of a task's entries."""
        return self.bytes_each * (node.effort.models * max(1, len(node.stores)) or node.effort.amount)


Rates = Mapping[str, Rate]


def measured_rates(config: StudyConfig, data: Dataset, progress: Progress) -> Rates:
    """Run two trials of a study, and fit the rate of every kind of its tasks.

    Args:
        config: the study; a given victim takes part as it is, with all records.
        data: its records.
        progress: receives the stages of the trials.
    """
    seen: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    sizes = [len(data)] if config.victim is not None else _sizes(config, data)
    for size in sizes:
        small = data if size == len(data) else data.select(_drawn(data, size))
        for node, seconds, size_of_entries in _trial(_trial_config(config), small, progress):
            per = node.effort.models * max(1, len(node.stores)) or node.effort.amount
            seen[node.effort.kind].append((node.effort.amount, seconds, size_of_entries / max(per, 1.0)))
    return {kind: _fit(np.array(points)) for kind, points in seen.items()}


def rate_of(rates: Rates, node: Node) -> Rate:
    """The rate of a task: of its kind, or of training where the trial had none of the kind."""
    return rates.get(node.effort.kind) or rates.get("train") or Rate(0.0, 0.0, 0.0)


def _fit(points: np.ndarray) -> Rate:
    """A line through times by amount that neither falls nor begins below zero, with the smallest
    relative errors.
    """
    amount, seconds, bytes_each = points.T
    weight = 1 / np.maximum(seconds, LEAST)
    (start, each), _ = nnls(np.stack([weight, weight * amount], axis=1), weight * seconds)
    return Rate(float(start), float(each), float(np.median(bytes_each)))


def _trial(config: StudyConfig, data: Dataset, progress: Progress) -> list[tuple[Node, float, float]]:
    """Every task of a small study, with the seconds that it took and the bytes that it wrote."""
    measured: list[tuple[Node, float, float]] = []
    # of one thread the processor's time, which other programs do not lengthen
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    with TemporaryDirectory(prefix="wemem-trial-") as folder:
        store = Store(folder, progress.warn)
        pipeline = Pipeline.open(config, data, store, Silent())
        program = StudyProgram(config)
        phase = Phase(program, tuple(arm_groups(config, searched=False)))
        graph: Graph = phase_graph(phase, pipeline)
        parties = program.parties(pipeline, config.seeds[0])
        progress.begin(f"trial on {len(data):,} records", 0)
        for i, node in enumerate(graph.nodes):
            stage = find_task(program.stages(parties, node.group), node.key)
            assert stage is not None  # the graph was read off the same stages
            before, began = store.size(), clock()
            stage.ensure()
            if i:  # the first one waits for libraries that are loaded on use
                measured.append((node, clock() - began, float(store.size() - before)))
            progress.advance((i + 1) / len(graph), node.title)
        progress.end(stored=False)
    return measured


def _trial_config(config: StudyConfig) -> StudyConfig:
    """The study with one seed, one sparsity, few epochs and rounds, and at most one chunk of models."""
    arms = {label: config.known_defenses[label] for label in config.known_defenses} or {"undefended": Undefended()}
    sparsity = config.pruning.sparsities[0]
    return replace(
        config, defenses=arms, budgets={}, grids={}, references={}, seeds=config.seeds[:1],
        training=replace(config.training, epochs=2, patience=None),
        finetune=replace(config.finetune, epochs=1, patience=None),
        pruning=replace(config.pruning, rounds=2, sparsity=sparsity),
        split=replace(config.split, references=min(CHUNK, config.reference_models)),
        scores=replace(config.scores, models=min(CHUNK, config.scores.models), drawn_from="own"),
    )  # fmt: skip


def _sizes(config: StudyConfig, data: Dataset) -> list[int]:
    """The number of records of the two trials: fewer for a model that takes long."""
    least = FEWEST * data.classes * (1 + config.split.shadows)
    module = config.model.build(data.input_shape, data.classes) if data.table is None else None
    most = MOST
    if module is not None:
        x = torch.from_numpy(data.features[:64])
        with torch.no_grad():
            module.eval()(x)
            began = time.perf_counter()
            module(x)
        each = (time.perf_counter() - began) / len(x)
        arms = len(config.arms) + 1
        most = int(SECONDS / (3 * each * (CHUNK + 1 + config.split.shadows) * arms * 2))
    large = min(len(data), max(least, min(MOST, most)))
    small = max(least, large // 2)
    return [large] if small >= large else [small, large]


def _drawn(data: Dataset, size: int) -> np.ndarray:
    return np.sort(stratified_draw(data.labels, np.arange(len(data)), [size], generator(0, "plan/trial"))[0])

"""Rates of a study's tasks on this machine, from small trials of the study itself.

A trial has one seed, few records and epochs, and otherwise every arm and attack of the study. The
time of a task is taken as a constant and a part that grows with its amount of work; trials of
different sizes give both, for each kind of task. All trials together have :data:`BUDGET` seconds.
Some trainings on the fewest records show how many records there can be.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from operator import attrgetter
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from scipy.optimize import nnls

from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.data.split import stratified_draw
from wemem.defenses import Undefended
from wemem.execution.draft import without_clusters
from wemem.execution.graph import Graph, Node, find_task, phase_graph
from wemem.execution.outlook import seconds_for_a_record
from wemem.execution.program import Phase, StudyProgram
from wemem.pipeline.cost import CHUNK
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Progress, Silent
from wemem.pipeline.stage import Stage
from wemem.randomness import generator
from wemem.store.store import Store
from wemem.study.groups import Group, arm_groups

#: Seconds for all trials; a task that would end later does not begin.
BUDGET = 10.0
#: Most records of the largest trial, and fewest of each class for each party.
MOST, FEWEST = 2000, 12
#: Epochs of the trainings of a trial.
EPOCHS = 2
#: Records of the step that shows if a model is slow.
PROBE = 16
#: Trainings on the fewest records that come first, and share of the budget for the trial that they
#: show the size of.
PROBES, SHARE = 3, 0.5
#: Share of the budget above which the smallest trial's first training makes a model a slow one.
SLOW = 0.25
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


@dataclass
class Measured:
    """Times of tasks, by kind, within a budget.

    Args:
        clock: seconds from any moment on.
        until: the reading of the clock at which the budget is spent. The first task waits for
            libraries that are loaded on use, and puts it off by what it takes longer than expected.
        training: the rate of training that is expected before any but the first task was measured.
        points: by kind: amount, seconds, and bytes for one unit, of every task but the first.
        begun: True once there was a task.
    """

    clock: Callable[[], float]
    until: float
    training: Rate
    points: dict[str, list[tuple[float, float, float]]] = field(default_factory=lambda: defaultdict(list))
    begun: bool = False

    @property
    def rates(self) -> Rates:
        """The rate of every kind that was measured, and of training."""
        training = self.points.get("train")
        start = _fit(np.array(training), 0.0).start if training else 0.0
        fitted = {kind: _fit(np.array(points), start) for kind, points in self.points.items()}
        return {"train": self.training, **fitted}

    def add(self, node: Node, seconds: float, written: float) -> None:
        """Count a task that took some seconds and wrote some bytes."""
        amount = node.effort.amount
        per = node.effort.models * max(1, len(node.stores)) or amount
        each = written / max(per, 1.0)
        if self.begun:
            self.points[node.kind].append((amount, seconds, each))
        else:
            self.until += max(0.0, seconds - self.training.each * amount)
            self.training, self.begun = replace(self.training, bytes_each=each), True

    def expected(self, nodes: Iterable[Node], larger: float = 1.0) -> float:
        """The expected time of tasks.

        Args:
            nodes: the tasks.
            larger: how many times as many records they work on.
        """
        rates = self.rates
        times = [(rate_of(rates, node), node.effort.amount * larger) for node in nodes]
        return sum(rate.start + rate.each * amount for rate, amount in times)

    @property
    def left(self) -> float:
        """The seconds of the budget that are left."""
        return self.until - self.clock()


@dataclass
class Trial:
    """A small study of which some tasks are run.

    Args:
        program: the small study.
        pipeline: its parts.
        graph: its tasks.
        measured: receives the times of the tasks.
        progress: receives their titles.
        done: the numbers of the tasks that were run.
    """

    program: StudyProgram
    pipeline: Pipeline
    graph: Graph
    measured: Measured
    progress: Progress
    done: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.parties = self.program.parties(self.pipeline, self.program.config.seeds[0])
        self._stages: dict[Group, Sequence[Stage[Any]]] = {}

    def run(self, tasks: Iterable[int]) -> None:
        """Run some tasks, but those that are expected to end after the budget or follow such a one."""
        for i in sorted(set(tasks) - self.done):
            node = self.graph.nodes[i]
            if self.done.issuperset(node.after) and self.measured.expected([node]) < self.measured.left:
                self._run(node)
                self.done.add(i)
                self.progress.advance(len(self.done) / len(self.graph), node.title)

    def _run(self, node: Node) -> None:
        if node.group not in self._stages:
            self._stages[node.group] = self.program.stages(self.parties, node.group)
        stage = find_task(self._stages[node.group], node.key)
        assert stage is not None  # the graph was read off the same stages
        store, clock = self.pipeline.workspace.cache.store, self.measured.clock
        before, began = store.size(), clock()
        stage.ensure()
        self.measured.add(node, clock() - began, float(store.size() - before))


def measured_rates(
    config: StudyConfig, data: Dataset, progress: Progress, clock: Callable[[], float] | None = None
) -> Rates:
    """Run trials of a study, and fit the rate of every kind of its tasks.

    Args:
        config: the study; a given victim takes part as it is, with all records.
        data: its records.
        progress: receives the stages of the trials.
        clock: the clock of tasks and budget; None for one of this process.
    """
    if clock is None:
        # of one thread the processor's time, which other programs do not lengthen
        clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    step = seconds_for_a_record(config, data, PROBE)
    measured = Measured(clock, clock() + BUDGET, Rate(0.0, step, 0.0))
    small = _trial_config(config, slow=_is_slow(config, data, step))
    sizes = [len(data)] if config.victim is not None else _sizes(small, data)
    with _trial(small, data, sizes[0], measured, progress) as least:
        least.run([i for i, node in enumerate(least.graph.nodes) if node.kind == "train" and not node.after][:PROBES])
        showing = [least.graph.nodes[i] for i in every_kind(least.graph)]
        size = _affordable(sizes, sizes[0], showing, measured, SHARE)
        untried = list(sizes)
        if size in (None, sizes[0]):
            _show(least)
            untried.remove(sizes[0])
    while size is not None:
        if size in untried:
            with _trial(small, data, size, measured, progress) as trial:
                _show(trial)
        untried = [other for other in untried if other != size]
        size = _affordable(untried, sizes[0], showing, measured)
    return measured.rates


def _affordable(
    sizes: Sequence[int], least: int, showing: Sequence[Node], measured: Measured, share: float = 1.0
) -> int | None:
    """The largest size at which tasks are expected to take at most a share of the budget that is left.

    Args:
        sizes: the sizes.
        least: the size at which the tasks have their amounts.
        showing: the tasks.
        measured: the times so far.
        share: the share.
    """
    fitting = [size for size in sizes if measured.expected(showing, size / least) < share * measured.left]
    return max(fitting, default=None)


def _show(trial: Trial) -> None:
    """Run tasks of every kind, trainings first, and then of every kind with every number of models."""
    trial.run(every_kind(trial.graph, by=lambda node: node.kind if node.trains else "other"))
    trial.run(every_kind(trial.graph))
    trial.run(every_kind(trial.graph, by=lambda node: (node.kind, node.effort.models)))


@contextmanager
def _trial(config: StudyConfig, data: Dataset, size: int, measured: Measured, progress: Progress) -> Iterator[Trial]:
    """A trial with some of the records, in a store of its own."""
    with TemporaryDirectory(prefix="wemem-trial-") as folder:
        few = data if size == len(data) else data.select(_drawn(data, size))
        pipeline = Pipeline.open(config, few, Store(folder, progress.warn), Silent())
        program = StudyProgram(config)
        graph = phase_graph(Phase(program, tuple(arm_groups(config, searched=False))), pipeline)
        progress.begin(f"trial on {size:,} records", 0)
        yield Trial(program, pipeline, graph, measured, progress)
        progress.end(stored=False)


def every_kind(graph: Graph, *, by: Callable[[Node], Hashable] = attrgetter("kind")) -> frozenset[int]:
    """Tasks that show every kind of task, with all that they come after.

    Args:
        graph: the tasks.
        by: the kind of a task; of each kind it is the task that adds the least work to those of the
            kinds before. Of several such tasks it is the last, for the first arms are controls, some of
            which prune nothing.
    """
    showing = frozenset[int]()
    for kind in dict.fromkeys(map(by, graph.nodes)):
        added = [graph.before(i) - showing for i, node in enumerate(graph.nodes) if by(node) == kind]
        showing |= min(reversed(added), key=lambda tasks: sum(graph.nodes[i].expected_time for i in tasks))
    return showing


def rate_of(rates: Rates, node: Node) -> Rate:
    """The rate of a task: of its kind; or else of trainings, and none of an attack."""
    if (known := rates.get(node.kind)) is not None:
        return known
    if not (node.trains or node.kind == "query") or "train" not in rates:
        return Rate(0.0, 0.0, 0.0)
    return rates["train"] if node.effort.models else replace(rates["train"], bytes_each=0.0)


def _fit(points: np.ndarray, start: float) -> Rate:
    """A line through times by amount that neither falls nor begins below zero, with the smallest
    relative errors.

    Args:
        points: amount, seconds, and bytes for one unit, of every task.
        start: the time of a task of no amount, where all tasks have the same amount.
    """
    amount, seconds, bytes_each = points.T
    unit, whole = float(np.median(bytes_each)), float(amount[0])
    if amount.min() == amount.max():
        usual = float(np.median(seconds))
        start = min(start, usual) if whole else usual
        return Rate(start, (usual - start) / max(whole, 1.0), unit)
    weight = 1 / np.maximum(seconds, LEAST)
    (start, each), _ = nnls(np.stack([weight, weight * amount], axis=1), weight * seconds)
    return Rate(float(start), float(each), unit)


def _trial_config(config: StudyConfig, *, slow: bool) -> StudyConfig:
    """The study with one seed, one sparsity, few epochs and rounds, and at most one chunk of models.

    Args:
        config: the study.
        slow: True for as little training as any task can have.
    """
    arms = {label: config.known_defenses[label] for label in config.known_defenses} or {"undefended": Undefended()}
    sparsity, scores = config.pruning.sparsities[0], config.scores
    # models of the pool score all references at once, but none of its canaries
    drawn_from: Literal["own", "pool"] = "own" if config.canaries else "pool"
    return without_clusters(replace(
        config, defenses=arms, budgets={}, grids={}, references={}, seeds=config.seeds[:1],
        training=replace(config.training, epochs=1 if slow else EPOCHS, patience=None),
        finetune=replace(config.finetune, epochs=1, patience=None),
        pruning=replace(config.pruning, rounds=1 if slow else 2, sparsity=sparsity),
        split=replace(
            config.split, references=min(CHUNK, config.reference_models),
            shadows=1 if slow else config.split.shadows,
        ),
        scores=replace(scores, models=min(CHUNK, scores.models), drawn_from=drawn_from),
    ))  # fmt: skip


def _is_slow(config: StudyConfig, data: Dataset, step: float) -> bool:
    """True if training the victim and its shadows on few records would take much of the budget.

    Args:
        config: the study.
        data: its records.
        step: the seconds that a step of the model takes for each record.
    """
    return config.victim is None and step * _fewest(config, data) * EPOCHS > SLOW * BUDGET


def _fewest(config: StudyConfig, data: Dataset) -> int:
    """The number of records of the smallest trial, in which the rarest class has enough of them."""
    rarest = int(np.unique(data.labels, return_counts=True)[1].min()) / len(data)
    return min(len(data), math.ceil(FEWEST * (1 + config.split.shadows) / rarest))


def _sizes(config: StudyConfig, data: Dataset) -> list[int]:
    """The numbers of records of the trials, each about twice as large as the one before."""
    least = _fewest(config, data)
    large = min(len(data), max(least, MOST))
    steps = max(1, round(np.log2(large / least)))
    return sorted({round(least * (large / least) ** (place / steps)) for place in range(steps + 1)})


def _drawn(data: Dataset, size: int) -> np.ndarray:
    return np.sort(stratified_draw(data.labels, np.arange(len(data)), [size], generator(0, "plan/trial"))[0])

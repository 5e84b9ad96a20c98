"""The plan of a study before it runs: its tasks, what is stored already, and the expected time.

The tasks are those of the graph that every executor runs. Times are expected from rates; the wall
time on several workers follows from a simulation of the graph in the order in which tasks start.
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.defenses import make_defense
from wemem.execution.draft import repeated, without_clusters
from wemem.execution.graph import Frontier, Graph, Node, phase_graph
from wemem.execution.program import Phase, StudyProgram
from wemem.execution.trial import Rate, Rates, rate_of
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Silent
from wemem.store.store import Store
from wemem.study.groups import arm_groups, search_groups, selection_groups
from wemem.tuning.space import STARTS

#: The numbers of workers for which the wall time is simulated.
WORKERS = (1, 8, 64, 512)


@dataclass(frozen=True)
class KindPlan:
    """The tasks of one kind.

    Args:
        kind: the kind.
        tasks: their number.
        stored: the number of those that need not run.
        models: the number of models that the others train.
        records: the number of records that these trainings show, each as often as it is shown.
        seconds: the expected time of the others on one worker.
    """

    kind: str
    tasks: int
    stored: int
    models: int
    records: float
    seconds: float


@dataclass(frozen=True)
class Plan:
    """The work that a run would do, and its expected time.

    Args:
        kinds: the tasks by kind, the longest first.
        bytes: the bytes that the run would write into the store.
        critical_path: the expected time of the longest chain of tasks, in seconds.
        wall: the expected wall time by number of workers, in seconds.
        threads: the number of threads of each task.
        assumptions: sentences on what is not known before the run.
    """

    kinds: tuple[KindPlan, ...]
    bytes: float
    critical_path: float
    wall: Mapping[int, float]
    threads: int
    assumptions: tuple[str, ...]

    @property
    def tasks(self) -> int:
        """The number of all tasks."""
        return sum(kind.tasks for kind in self.kinds)

    @property
    def stored(self) -> int:
        """The number of tasks that need not run."""
        return sum(kind.stored for kind in self.kinds)

    @property
    def models(self) -> int:
        """The number of models to train."""
        return sum(kind.models for kind in self.kinds)

    @property
    def records(self) -> float:
        """The number of records that trainings show."""
        return sum(kind.records for kind in self.kinds)

    @property
    def seconds(self) -> float:
        """The expected time of all tasks on one worker."""
        return sum(kind.seconds for kind in self.kinds)

    def as_json(self) -> dict[str, Any]:
        """The plan as JSON-able values, with its sums."""
        sums = {name: getattr(self, name) for name in ("tasks", "stored", "models", "records", "seconds")}
        return {"schema": "wemem.plan/1", **sums, **asdict(self), "wall": {str(n): s for n, s in self.wall.items()}}


@dataclass(frozen=True)
class Planned:
    """The tasks of one phase, and those of them that must run.

    Args:
        graph: the tasks.
        run: the numbers of those that must run.
    """

    graph: Graph
    run: set[int]


def planned_phases(config: StudyConfig, data: Dataset, store: Store) -> list[Planned]:
    """The tasks of all phases of a study, with a usual defense in the place of one that is not known.

    On an empty store they are those of a draft (:mod:`wemem.execution.draft`): one seed stands for
    all, and clusters of similar records are not drawn.

    Args:
        config: the study.
        data: its records.
        store: the store, in which tasks are looked up.
    """
    if config.victim is not None or store.listed():
        return phases_by_key(config, data, store)
    drafts = phases_by_key(replace(without_clusters(config), seeds=config.seeds[:1]), data, store)
    return [_for_seeds(phase, config.seeds) for phase in drafts]


def phases_by_key(config: StudyConfig, data: Dataset, store: Store) -> list[Planned]:
    """The tasks of all phases under the very keys of a run, which takes as long as a run takes to draw
    the records of all models.
    """
    known = StudyProgram(replace(config, grids={}))
    phases = [Phase(StudyProgram(config), tuple(selection_groups(config)))] if config.grids else []
    phases.append(Phase(known, (*arm_groups(config, searched=False), *search_groups(config))))
    searched = {label: budget for label, budget in config.budgets.items() if budget.searches}
    if searched:
        usual = {label: make_defense(one.families[0], STARTS[one.families[0]]) for label, one in searched.items()}
        others = {label: budget for label, budget in config.budgets.items() if label not in usual}
        later = replace(config, grids={}, defenses={**config.defenses, **usual}, budgets=others)
        groups = tuple(group for group in arm_groups(later, searched=False) if group.label in usual)
        phases.append(Phase(StudyProgram(later), groups))
    planned: list[Planned] = []
    before: set[str] = set()  # keys of tasks of an earlier phase
    for phase in phases:
        graph = phase_graph(phase, Pipeline.open(phase.program.config, data, store, Silent()))
        present = store.present([key for node in graph.nodes for key in node.stores])
        missing = [i for i in sorted(graph.missing(present)) if graph.nodes[i].key not in before]
        planned.append(Planned(graph, set(missing)))
        before.update(graph.nodes[i].key for i in missing)
    return planned


def _for_seeds(phase: Planned, seeds: Sequence[int]) -> Planned:
    one = len(phase.graph)
    run = {place * one + i for place in range(len(seeds)) for i in phase.run}
    return Planned(repeated(phase.graph, seeds), run)


def make_plan(
    config: StudyConfig, phases: Sequence[Planned], rates: Rates, threads: int, workers: Sequence[int] = WORKERS
) -> Plan:  # fmt: skip
    """The plan of a study.

    Args:
        config: the study.
        phases: its tasks.
        rates: by kind of task.
        threads: the number of threads of each task.
        workers: the numbers of workers whose wall time is simulated.
    """
    wall = dict.fromkeys(workers, 0.0)
    path = written = 0.0
    for phase in phases:
        times = [rate_of(rates, node).seconds(node) for node in phase.graph.nodes]
        path += max(phase.graph.path_lengths(times, phase.run).values(), default=0.0)
        written += sum(rate_of(rates, phase.graph.nodes[i]).bytes(phase.graph.nodes[i]) for i in phase.run)
        for number in wall:
            wall[number] += simulated_time(phase.graph, phase.run, times, number)
    kinds = _kinds(phases, rates)
    assumptions = (*_assumptions(config), *_unmeasured(kinds, rates))
    return Plan(kinds, written, path, wall, threads, assumptions)


def simulated_time(graph: Graph, run: set[int], times: Sequence[float], workers: int) -> float:
    """The wall time of some tasks on workers that start them as an executor does.

    Args:
        graph: the tasks.
        run: the numbers of those that must run.
        times: the time of each task.
        workers: the number of workers.
    """
    frontier, running, now = Frontier(graph, run, times), list[tuple[float, int]](), 0.0
    while frontier.left:
        while len(running) < workers and (number := frontier.take()) is not None:
            heapq.heappush(running, (now + times[number], number))
        now, ended = heapq.heappop(running)
        frontier.done(ended)
    return now


def _kinds(phases: Sequence[Planned], rates: Rates) -> tuple[KindPlan, ...]:
    """The tasks by kind, each task of several phases once."""
    nodes: dict[str, tuple[Node, bool]] = {}
    for phase in phases:
        for i, node in enumerate(phase.graph.nodes):
            nodes[node.key] = (node, i in phase.run or nodes.get(node.key, (node, False))[1])
    kinds: dict[str, KindPlan] = {}
    for node, runs in nodes.values():
        kind, effort = node.kind, node.effort
        known = kinds.get(kind, KindPlan(kind, 0, 0, 0, 0.0, 0.0))
        rate: Rate = rate_of(rates, node)
        kinds[kind] = replace(
            known, tasks=known.tasks + 1, stored=known.stored + (not runs), models=known.models + runs * effort.models,
            records=known.records + runs * effort.work, seconds=known.seconds + (rate.seconds(node) if runs else 0.0),
        )  # fmt: skip
    return tuple(sorted(kinds.values(), key=lambda kind: -kind.seconds))


def _unmeasured(kinds: Sequence[KindPlan], rates: Rates) -> list[str]:
    """A sentence on the kinds of tasks that were too long for a trial; none if there are none."""
    missing = [kind.kind for kind in kinds if kind.stored < kind.tasks and kind.kind not in rates]
    if not missing:
        return []
    many = f"{', '.join(missing[:3])}{' and others' if len(missing) > 3 else ''}"
    return [
        f"Not tried, for it would have taken too long: {many}. Training is expected at one rate, attacks at no time."
    ]


def _assumptions(config: StudyConfig) -> list[str]:
    sentences = []
    if config.training.patience is not None or config.finetune.patience is not None:
        sentences.append(
            "Trainings that stop early are expected to run 21 epochs; how long they run is not known before."
        )
    if config.grids:
        sentences.append("Settings that a grid selects are not known yet: the first of each stands for it.")
    if any(budget.searches for budget in config.budgets.values()):
        sentences.append("Defenses that are searched for are not known yet: a usual one stands for each.")
    return sentences

"""The task graph of a phase: every stage that leaves something in the store, and those that it comes
after.

The graph is read off the stages that the phase needs (:mod:`wemem.pipeline.stage`), which are the
same objects that compute. So it cannot differ from the computation. A node names its stage by the
group that it belongs to and by its key; a worker builds the group again and finds the same key, or
computes something else and is refused.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from wemem.execution.program import Phase
from wemem.pipeline.parties import Parties
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.stage import Effort, Stage
from wemem.store.key import Key, bare
from wemem.store.keys import TeacherTargetsKey
from wemem.study.groups import Group, Searched

#: The stage of the keys of soft targets.
TEACHING = TeacherTargetsKey.stage


@dataclass(frozen=True)
class Node:
    """One task.

    Args:
        key: the key of its stage.
        title: the name of its stage in the progress display.
        seed: the seed of the study that it belongs to.
        group: the group of stages that it is found in.
        stores: the keys of the entries that it leaves in the store; none for a search, whose steps
            are stored as they are tried.
        after: the numbers of the nodes that must be done before it starts.
        effort: the size of its computation.
        is_result: True if a result is read from it, so that it must be there at the end.
    """

    key: Key
    title: str
    seed: int
    group: Group
    stores: tuple[Key, ...]
    after: tuple[int, ...]
    effort: Effort
    is_result: bool

    @property
    def kind(self) -> str:
        """The kind of its computation: that of the stage, with soft targets of each arm apart, since
        teachers may be trained for them.
        """
        return f"teach {self.group.label}" if self._teaches else self.effort.kind

    @property
    def trains(self) -> bool:
        """True if models may be trained."""
        return self._teaches or self.effort.work > 0

    @property
    def _teaches(self) -> bool:
        return bool(self.key.origin["stage"] == TEACHING)

    @property
    def expected_time(self) -> float:
        """The time relative to other nodes; what trains nothing counts as a moment."""
        return max(self.effort.work * self.effort.step_time, 1.0)


@dataclass(frozen=True)
class Graph:
    """The tasks of a phase, each after those that it needs.

    Args:
        nodes: the tasks.
    """

    nodes: tuple[Node, ...]

    def __len__(self) -> int:
        return len(self.nodes)

    def missing(self, present: frozenset[Key]) -> set[int]:
        """The numbers of the nodes that must run, given the keys that the store has.

        A node whose result is neither read at the end nor needed by one that must run is left out,
        even if its entry is missing.
        """
        needed = [node.is_result for node in self.nodes]
        run: set[int] = set()
        for i in reversed(range(len(self.nodes))):
            node = self.nodes[i]
            if needed[i] and not (node.stores and present.issuperset(node.stores)):
                run.add(i)
                for other in node.after:
                    needed[other] = True
        return run

    def before(self, number: int) -> frozenset[int]:
        """The numbers of a node and of all nodes that must be done before it."""
        found, pending = {number}, [number]
        while pending:
            new = set(self.nodes[pending.pop()].after) - found
            found |= new
            pending += new
        return frozenset(found)

    def path_lengths(self, times: Sequence[float], run: Iterable[int]) -> dict[int, float]:
        """The time from the start of each node to the end of the longest chain of nodes behind it."""
        lengths = dict.fromkeys(run, 0.0)
        for i in sorted(lengths, reverse=True):
            lengths[i] += times[i]
            for other in self.nodes[i].after:
                if other in lengths:
                    lengths[other] = max(lengths[other], lengths[i])
        return lengths


class Frontier:
    """The nodes of a graph that are ready, those on the longest path first.

    Args:
        graph: the graph.
        run: the numbers of the nodes that must run.
        times: the expected time of each node, in any unit.
    """

    def __init__(self, graph: Graph, run: set[int], times: Sequence[float] | None = None) -> None:
        times = [node.expected_time for node in graph.nodes] if times is None else times
        self._length = graph.path_lengths(times, run)
        self._waiting = {i: sum(other in run for other in graph.nodes[i].after) for i in run}
        self._behind: dict[int, list[int]] = {i: [] for i in run}
        for i in run:
            for other in graph.nodes[i].after:
                if other in run:
                    self._behind[other].append(i)
        self._ready = [(-self._length[i], i) for i in run if not self._waiting[i]]
        heapq.heapify(self._ready)
        self.left = len(run)

    def take(self) -> int | None:
        """The number of the next node to start; None if none is ready."""
        return heapq.heappop(self._ready)[1] if self._ready else None

    def put_back(self, number: int) -> None:
        """Make a node that was taken ready again."""
        heapq.heappush(self._ready, (-self._length[number], number))

    def done(self, number: int) -> None:
        """Count a node as done; those behind it may become ready."""
        self.left -= 1
        for i in self._behind[number]:
            self._waiting[i] -= 1
            if not self._waiting[i]:
                heapq.heappush(self._ready, (-self._length[i], i))


def phase_graph(phase: Phase, pipeline: Pipeline) -> Graph:
    """Build the graph of a phase.

    Args:
        phase: the phase.
        pipeline: the parts for its study; nothing is computed with them but keys.
    """
    building = _Building()
    for seed in phase.program.config.seeds:
        parties = phase.program.parties(pipeline, seed)
        for group in phase.groups:
            building.add(parties, group, phase.program.stages(parties, group))
    return Graph(tuple(building.nodes))


@dataclass
class _Building:
    """A graph that grows by groups.

    Args:
        nodes: the nodes so far.
        numbers: the number of each node, by key.
        in_turn: by what nodes must not work on at once, the last node that works on it.
    """

    nodes: list[Node] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    in_turn: dict[str, int] = field(default_factory=dict)

    def add(self, parties: Parties, group: Group, stages: Sequence[Stage[Any]]) -> None:
        """Add all stages that some stages read, and those themselves."""
        behind: dict[int, frozenset[int]] = {}  # by stage: the nodes that its result is read from
        for stage in _ordered(stages):
            after = frozenset().union(*(behind[id(need)] for need in stage.needs))
            behind[id(stage)] = frozenset({self._number(parties, group, stage, after)}) if is_task(stage) else after
        for i in frozenset().union(*(behind[id(stage)] for stage in stages)):
            self.nodes[i] = replace(self.nodes[i], is_result=True)

    def _number(self, parties: Parties, group: Group, stage: Stage[Any], after: frozenset[int]) -> int:
        known = self.numbers.get(stage.key)
        if known is not None:
            if len(stage.stores) > len(self.nodes[known].stores):  # the same rounds, all of them kept
                self.nodes[known] = replace(self.nodes[known], group=group, stores=tuple(map(bare, stage.stores)))
            return known
        number = self.numbers[bare(stage.key)] = len(self.nodes)
        # prunings that have rounds in common run one after another: one may delete what the other
        # goes on from; so do searches, which try settings on the same models
        touched = [str(key) for key in (*stage.stores, *stage.deletes)] if stage.key.origin["stage"] == "round" else []
        touched += [f"search {parties.seed}"] if isinstance(stage, Searched) else []
        shared = {self.in_turn[key] for key in touched if key in self.in_turn}
        self.in_turn.update(dict.fromkeys(touched, number))
        own, stores, needed = bare(stage.key), tuple(map(bare, stage.stores)), tuple(sorted(after | shared))
        node = Node(own, stage.title, parties.seed, group, stores, needed, stage.effort, is_result=False)
        self.nodes.append(node)
        return number


def is_task(stage: Stage[Any]) -> bool:
    """True if a stage computes something, rather than put results of others together."""
    return bool(stage.stores) or isinstance(stage, Searched)


def find_task(stages: Sequence[Stage[Any]], key: str) -> Stage[Any] | None:
    """The task of a key among some stages and all that they read; that which stores most, if several."""
    tasks = [stage for stage in _ordered(stages) if is_task(stage) and stage.key == key]
    return max(tasks, key=lambda stage: len(stage.stores), default=None)


def _ordered(stages: Sequence[Stage[Any]]) -> Iterator[Stage[Any]]:
    """Some stages and all that they read, each once and after those that it reads."""
    seen: set[int] = set()
    for stage in stages:
        for one in (*stage.upstream(), stage):
            if id(one) not in seen:
                seen.add(id(one))
                yield one

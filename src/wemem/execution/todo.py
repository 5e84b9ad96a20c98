"""The work that is left of a program, phase by phase, for any executor."""

from collections.abc import Iterator
from dataclasses import dataclass

from wemem.data.dataset import Dataset
from wemem.execution.graph import Graph, phase_graph
from wemem.execution.program import Program, require_table
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Progress, Silent
from wemem.store.store import Store


@dataclass(frozen=True)
class Todo:
    """One phase of a program, and the tasks of it that are not in the store.

    Args:
        program: the program with the settings that are known by now.
        graph: the tasks of the phase.
        run: the numbers of those that must run.
    """

    program: Program
    graph: Graph
    run: set[int]


def work_of(program: Program, data: Dataset, store: Store, progress: Progress) -> Iterator[Todo]:
    """The phases of a program; each is built once the one before it was performed.

    Args:
        program: the program.
        data: the records.
        store: the store.
        progress: is given the planned work of every phase with all that is expected after it.

    Raises:
        InputError: a study that no table gives, or one that would fail after training.
    """
    require_table(program.study)
    program.require_feasible(Pipeline.open(program.config, data, store, Silent()))
    later = program.expected_work(data)
    for phase in program.phases(store, data):
        graph = phase_graph(phase, Pipeline.open(phase.program.config, data, store, Silent()))
        run = graph.missing(store.present([key for node in graph.nodes for key in node.stores]))
        later = max(0.0, later - sum(node.effort.work for node in graph.nodes))
        progress.plan(sum(graph.nodes[i].effort.work for i in run) + later)
        yield Todo(phase.program, graph, run)

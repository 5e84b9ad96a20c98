"""The outlook on a command before it runs: its models, the records that they see, and the time."""

import time
from dataclasses import dataclass

import torch

from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.execution.graph import Node, phase_graph
from wemem.execution.program import Program
from wemem.models.table import model_for
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Silent
from wemem.store.store import Store

#: Steps that are timed; the fastest counts.
STEPS = 3


@dataclass(frozen=True)
class Outlook:
    """The trainings of a command before it runs.

    Args:
        models: the number of models; None if it is not known before.
        records: the records that the trainings see, each as often as it is seen.
        seconds: the time, by that of one step of one model.
    """

    models: int | None
    records: float
    seconds: float


def program_outlook(program: Program, data: Dataset, store: Store) -> Outlook:
    """The outlook on a command on a given model, or on a diagnosis.

    Args:
        program: the command.
        data: the records.
        store: the store, in which finished stages are looked up.

    Raises:
        InputError: whatever the command would refuse before training.
    """
    pipeline = Pipeline.open(program.config, data, store, Silent())
    program.require_feasible(pipeline)
    nodes: list[Node] = []
    if (work := program.expected_work(data)) == 0:
        graphs = [phase_graph(phase, pipeline) for phase in program.phases(store, data)]
        for graph in graphs:
            present = store.present([key for node in graph.nodes for key in node.stores])
            nodes += [graph.nodes[i] for i in sorted(graph.missing(present))]
        work = sum(node.effort.work for node in nodes)
    return outlook(program.config, data, work, sum(node.effort.models for node in nodes) or None)


def outlook(config: StudyConfig, data: Dataset, records: float, models: int | None) -> Outlook:
    """The outlook on some work, from the time of a step."""
    return Outlook(models, records, records * seconds_for_a_record(config, data, config.training.batch_size))


def seconds_for_a_record(config: StudyConfig, data: Dataset, batch_size: int) -> float:
    """The time that a step of the untrained model takes for each of its records."""
    size = min(batch_size, len(data))
    with torch.random.fork_rng(devices=[]):
        module = model_for(config.model, data).build(data.input_shape, data.classes).train()
        x, y = torch.from_numpy(data.features[:size]), torch.from_numpy(data.labels[:size])
        times = [_step(module, x, y) for _ in range(STEPS)]
    return min(times) / size


def _step(module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    began = time.perf_counter()
    torch.autograd.backward(torch.nn.functional.cross_entropy(module(x), y))
    return time.perf_counter() - began

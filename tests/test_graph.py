"""The task graph: it is what a study computes, nothing is in it twice, and nothing that is stored runs."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from small_study import table, write_data
from wemem.config.parse import parse_study
from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.execution.graph import Frontier, Graph, Node, phase_graph
from wemem.execution.program import Phase, StudyProgram
from wemem.execution.worker import Worker, program_message, task_message
from wemem.pipeline.cost import CHUNK
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Silent
from wemem.pipeline.stage import Effort
from wemem.store.key import Key, bare
from wemem.store.store import Store
from wemem.study.groups import Group, selection_groups
from wemem.study.plan import cost_of, planned_work
from wemem.study.run import run_study
from wemem.training.device import CudaSettings, cuda_settings, use_cuda_settings

SMALL: dict[str, Any] = {
    "training": {"epochs": 1, "batch_size": 64}, "finetune": {"epochs": 1, "batch_size": 64},
    "pruning": {"rounds": 2}, "split": {"shadows": 1, "references": 4}, "scores": {"models": 6},
}  # fmt: skip
OOSD = {"kind": "oosd", "teachers": 2, "held_out": 1, "components": 0}


def config_of(folder: Path, **changed: Any) -> StudyConfig:
    return parse_study(table(write_data(folder), **(SMALL | changed)))


def opened(config: StudyConfig, store: Store) -> tuple[Dataset, Pipeline]:
    data = config.data.load()
    return data, Pipeline.open(config, data, store, Silent())


def graphs(config: StudyConfig, store: Store) -> Iterator[tuple[Phase, Graph]]:
    data, pipeline = opened(config, store)
    for phase in StudyProgram(config).phases(store, data):
        yield phase, phase_graph(phase, pipeline)


def graph_of(config: StudyConfig, folder: Path) -> Graph:
    """The graph of a study without grids and searches."""
    return next(graphs(config, Store(folder / "store")))[1]


def runs_before(graph: Graph, one: Node, other: Node) -> bool:
    """Whether one node is done when another starts, whatever the number of workers."""
    behind = [graph.nodes[i] for i in other.after]
    return one in behind or any(runs_before(graph, one, middle) for middle in behind)


def titled(graph: Graph, title: str, seed: int = 0) -> Node:
    (node,) = (node for node in graph.nodes if node.title == title and node.seed == seed)
    return node


class Recording(Store):
    """A store that lists what is put into it and what is deleted."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.added: list[Key] = []

    def put(self, key: Key, arrays: Any, meta: Any) -> Any:
        self.added.append(key)
        return super().put(key, arrays, meta)


@pytest.mark.slow
def test_each_task_leaves_its_own_results_and_no_others_and_then_a_study_computes_nothing(tmp_path):
    config = config_of(
        tmp_path, non_adaptive=True, leave_one_out=True,
        attacks=["confidence", "pruning_trajectory", "lira"],
        defenses=["undefended", OOSD, "swmr", "hamp"], pruning={"rounds": 2, "sparsity": [0.4, 0.6]},
        split={"shadows": 1, "references": 6},
    )  # fmt: skip
    store = Recording(tmp_path / "store")
    ((phase, graph),) = graphs(config, store)
    worker = Worker(phase.program, tmp_path / "store", Silent())
    worker._store, computed = store, list[Key]()
    for node in graph.nodes:
        store.added.clear()
        worker.perform(task_message(node))
        assert store.present(node.stores) == frozenset(node.stores)
        others = [key for key in store.added if key not in node.stores]
        assert all(key.origin["stage"] == "round" and node.title.startswith("prune") for key in others)
        computed += [key for key in store.added if key in node.stores]
    assert len(set(computed)) == len(computed)
    store.added.clear()
    assert len(list(run_study(config, store, Silent()))) == 1 + 4 * 2
    assert store.added == []


def test_a_graph_holds_each_task_once_and_after_those_that_it_needs(tmp_path):
    graph = graph_of(config_of(tmp_path, seeds=[0, 1], defenses=["undefended", "swmr", OOSD]), tmp_path)
    stored = [key for node in graph.nodes for key in node.stores]
    assert len(set(stored)) == len(stored) > 50
    assert all(other < i for i, node in enumerate(graph.nodes) for other in node.after)


def test_what_defenses_have_in_common_is_one_task_before_them_all(tmp_path):
    arms = [{**OOSD, "label": str(hard), "hard": hard} for hard in (0.2, 0.4)]
    graph = graph_of(config_of(tmp_path, defenses=["undefended", "swmr", *arms], attacks=["lira"]), tmp_path)
    teachers = [node for node in graph.nodes if "teachers 1-" in node.title and "references" not in node.title]
    assert len(teachers) == 1
    assert all(runs_before(graph, teachers[0], titled(graph, f"prune under {hard}")) for hard in (0.2, 0.4))
    assert not runs_before(graph, teachers[0], titled(graph, "prune under undefended"))
    assert runs_before(graph, titled(graph, "shadow 1 scores"), titled(graph, "prune under swmr"))
    assert not runs_before(graph, titled(graph, "shadow 1 scores"), titled(graph, "prune under undefended"))


def test_reference_models_of_one_defense_are_pruned_chunk_by_chunk_side_by_side(tmp_path):
    many = {"shadows": 1, "references": 3 * CHUNK}
    graph = graph_of(config_of(tmp_path, split=many, defenses=["undefended"], attacks=["lira"]), tmp_path)
    chains = [node for node in graph.nodes if node.title.startswith("prune references")]
    assert len(chains) == 3
    assert not any(runs_before(graph, one, other) for one in chains for other in chains)


def test_prunings_that_share_a_round_run_one_after_another_shortest_first(tmp_path):
    """One-shot pruning in one round is the first round of one-shot pruning in three."""
    config = config_of(
        tmp_path, pruning={"rounds": 1, "sparsity": 0.6}, defenses=["undefended"], attacks=["confidence"],
        controls=["one_shot"],
    )  # fmt: skip
    graph = graph_of(config, tmp_path)
    assert sum(node.title.startswith("prune under") for node in graph.nodes) == 1  # one key, one task


def test_searches_wait_for_one_another_and_what_they_find_is_a_phase_of_its_own(tmp_path):
    pytest.importorskip("optuna")
    budgets = [{"kind": "auto", "label": label, "max_tpr": tpr} for label, tpr in (("a", 0.1), ("b", 0.2))]
    online = {"kind": "auto", "mode": "online", "label": "c"}
    config = config_of(tmp_path, defenses=[*budgets, "undefended", online], attacks=["confidence"])
    graph = graph_of(config, tmp_path)
    first, second = titled(graph, "search a"), titled(graph, "search b")
    assert runs_before(graph, first, second)
    assert runs_before(graph, titled(graph, "defender scores"), first)
    assert {node.group.label for node in graph.nodes if node.group.what == "arm"} == {"undefended", "c"}


def test_settings_of_a_grid_that_share_teachers_train_them_once(tmp_path):
    grids = [
        {"kind": "oosd", "components": 0, "grid": {"teachers": [2], "held_out": [1], "hard": [0.0, 0.2]}},
        "undefended",
    ]
    config = config_of(tmp_path, defenses=grids, attacks=["confidence"])
    phase = Phase(StudyProgram(config), tuple(selection_groups(config)))
    graph = phase_graph(phase, opened(config, Store(tmp_path / "store"))[1])
    assert sum("teachers 1-2" in node.title for node in graph.nodes) == 1
    assert sum(node.title.startswith("select") and node.effort.work > 0 for node in graph.nodes) == 3 + 1


@pytest.mark.parametrize("drawn_from", ["own", "pool"])
def test_tasks_add_up_to_the_planned_work(drawn_from, tmp_path):
    config = config_of(
        tmp_path, seeds=[0, 1], defenses=["undefended", "rmr", OOSD], scores={"models": 6, "drawn_from": drawn_from}
    )  # fmt: skip
    graph = graph_of(config, tmp_path)
    assert sum(node.effort.work for node in graph.nodes) == pytest.approx(
        planned_work(cost_of(config, config.data.load())), rel=0.02
    )


def node(*after: int, result: bool = False, work: float = 1.0) -> Node:
    key = bare(Key.of("dense", {"node": [*after, result, work]}))
    return Node(key, "", 0, Group("dense"), (key,), after, Effort.training("train", work, 1), result)


def test_only_what_a_missing_result_needs_runs():
    graph = Graph((node(), node(work=2.0), node(0, work=3.0), node(1, result=True), node(2, result=True, work=4.0)))
    everything = frozenset(key for one in graph.nodes for key in one.stores)
    assert graph.missing(frozenset()) == {0, 1, 2, 3, 4}
    assert graph.missing(everything) == set()
    assert graph.missing(everything - set(graph.nodes[0].stores)) == set()
    assert graph.missing(frozenset((*graph.nodes[1].stores, *graph.nodes[4].stores))) == {3}


def test_the_node_with_the_longest_path_behind_it_starts_first():
    graph = Graph((node(work=5.0), node(work=2.0), node(1, work=9.0), node(0, 2, result=True)))
    frontier = Frontier(graph, {0, 1, 2, 3})
    assert [frontier.take(), frontier.take(), frontier.take()] == [1, 0, None]
    frontier.done(1)
    assert frontier.take() == 2
    frontier.done(2)
    assert frontier.take() is None
    frontier.done(0)
    assert (frontier.take(), frontier.left) == (3, 1)


def test_a_worker_computes_by_the_gpu_settings_of_the_process_that_named_its_tasks(tmp_path, monkeypatch):
    config = config_of(tmp_path, defenses=["undefended"], attacks=["confidence"])
    ((phase, graph),) = graphs(config, Store(tmp_path / "store"))
    known, seen = CudaSettings(replay=False, together=3), []
    with use_cuda_settings(known):
        message = json.loads(json.dumps(program_message(phase.program)))
    worker = Worker.of(message, tmp_path / "store", Silent())
    found = SimpleNamespace(stores=(), ensure=lambda: seen.append(cuda_settings()))
    monkeypatch.setattr("wemem.execution.worker.find_task", lambda stages, key: found)
    worker.perform(task_message(graph.nodes[0]))
    assert (seen, cuda_settings()) == ([known], CudaSettings())


def test_a_worker_whose_data_differ_is_refused(tmp_path):
    from wemem.errors import InputError

    config = config_of(tmp_path, defenses=["undefended"], attacks=["confidence"])
    ((phase, graph),) = graphs(config, Store(tmp_path / "store"))
    write_data(tmp_path, seed=1)
    with pytest.raises(InputError, match="other data or another version"):
        Worker(phase.program, tmp_path / "store", Silent()).perform(task_message(graph.nodes[-1]))

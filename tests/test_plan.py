"""The plan of a study: it counts what would run, and its wall times follow from the graph."""

import json
import re
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from small_study import table, write_data
from test_graph import SMALL, config_of, node
from wemem import api
from wemem.config.parse import parse_study
from wemem.execution.graph import Graph
from wemem.execution.plan import make_plan, phases_by_key, planned_phases, simulated_time
from wemem.execution.trial import BUDGET, Measured, Rate, every_kind, measured_rates
from wemem.pipeline.progress import Silent
from wemem.reporting.plan import plan_sentences, plan_table
from wemem.store.store import Store


class Shown(Silent):
    """Counts the stages that are computed."""

    computed = 0

    def end(self, *, stored: bool) -> None:
        self.computed += not stored


def test_one_worker_takes_the_sum_and_many_take_the_longest_chain():
    graph, run = Graph((node(), node(), node(0, 1), node(result=True))), {0, 1, 2, 3}
    times = [1.0, 2.0, 4.0, 3.0]
    assert simulated_time(graph, run, times, 1) == 10.0
    assert simulated_time(graph, run, times, 2) == 6.0  # 2 s and 4 s; beside them 1 s and 3 s
    assert simulated_time(graph, run, times, 100) == 6.0 == max(graph.path_lengths(times, run).values())
    assert simulated_time(graph, set(), times, 1) == 0.0


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_simulated_time_lies_between_its_bounds(data):
    nodes = []
    for i in range(data.draw(st.integers(1, 12))):
        nodes.append(node(*sorted(data.draw(st.sets(st.integers(0, i - 1), max_size=3)) if i else ()), work=1.0 + i))
    graph, run = Graph(tuple(nodes)), set(range(len(nodes)))
    times = [data.draw(st.floats(0.1, 5.0)) for _ in nodes]
    workers = data.draw(st.integers(1, 4))
    longest, whole = max(graph.path_lengths(times, run).values()), sum(times)
    took = simulated_time(graph, run, times, workers)
    assert max(longest, whole / workers) - 1e-9 <= took <= whole / workers + longest + 1e-9  # Graham's bound


def test_a_plan_counts_the_records_and_models_of_tasks_that_are_missing(tmp_path):
    config = config_of(tmp_path, defenses=["undefended"], attacks=["confidence"])
    data, store = config.data.load(), Store(tmp_path / "store")
    rates = {kind: Rate(1.0, 0.0, 10.0) for kind in ("train", "query", "attack confidence", "prune under undefended")}
    phases = planned_phases(config, data, store)
    plan = make_plan(config, phases, rates, threads=1)
    # dense models and pruned ones, a query and an attack of each
    assert (plan.tasks, plan.stored, plan.models) == (6, 0, 4)
    assert plan.records == 2 * 180 * 1 + 2 * 180 * 2
    assert plan.seconds == plan.wall[1] == 6.0
    assert plan.critical_path == plan.wall[8] == 4.0
    assert json.loads(json.dumps(plan.as_json()))["wall"]["512"] == 4.0
    assert "Not tried" not in " ".join(plan.assumptions)
    fewer = make_plan(config, phases, {kind: rates[kind] for kind in ("train", "query")}, threads=1)
    assert "too long: prune under undefended, attack confidence." in " ".join(fewer.assumptions)


class Ticking:
    """A clock that moves by so many seconds at each reading."""

    def __init__(self, tick: float) -> None:
        self.tick, self.now = tick, 0.0

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


class Counted(Silent):
    """Counts the tasks of trials."""

    tasks = 0

    def advance(self, share: float, label: str) -> None:
        self.tasks += 1


def test_the_first_task_puts_the_end_off_by_what_it_takes_longer_than_expected():
    measured = Measured(lambda: 0.0, BUDGET, Rate(0.0, 0.5, 0.0))
    first = node(work=4.0)
    measured.add(first, 0.5 * first.effort.amount + 7.0, 0.0)
    assert measured.left == BUDGET + 7.0
    measured.add(first, 100.0, 0.0)
    assert measured.left == BUDGET + 7.0


def test_trials_begin_no_task_after_their_budget(tmp_path):
    config, shown = config_of(tmp_path, defenses=["undefended"], attacks=["confidence"]), {}
    for tick in (BUDGET / 4, BUDGET / 40):
        shown[tick] = Counted()
        clock = Ticking(tick)
        rates = measured_rates(config, config.data.load(), shown[tick], clock)
        assert rates["train"].start + rates["train"].each > 0  # of a step, where no other task fits
    # a task is begun and ended by two readings of the clock, after one of what is left
    assert shown[BUDGET / 4].tasks == 1
    assert 1 < shown[BUDGET / 40].tasks <= 40 / 3


def test_a_class_without_a_record_stops_no_trial(tmp_path):
    config, counted = config_of(tmp_path, defenses=["undefended"], attacks=["confidence"]), Counted()
    data = config.data.load()
    measured_rates(config, replace(data, classes=data.classes + 1), counted, Ticking(BUDGET / 4))
    assert counted.tasks == 1


def test_a_trial_that_shows_every_kind_has_one_task_of_each_with_all_before_it(tmp_path):
    config = config_of(tmp_path, defenses=["undefended", "ppb"], attacks=["confidence", "lira"])
    (phase,) = planned_phases(config, config.data.load(), Store(tmp_path / "store"))
    nodes = phase.graph.nodes
    chosen = every_kind(phase.graph)
    assert {nodes[i].kind for i in chosen} == {node.kind for node in nodes}
    assert all(chosen.issuperset(nodes[i].after) for i in chosen)
    assert len(chosen) < len(nodes) / 2


@pytest.mark.slow
def test_a_draft_has_the_tasks_of_the_study(tmp_path):
    linear = {"kind": "oosd", "teachers": 2, "held_out": 1}
    config = config_of(tmp_path, defenses=["undefended", linear], attacks=["confidence", "lira"], seeds=[3, 5])
    data, store = config.data.load(), Store(tmp_path / "store")
    (draft,), (exact,) = planned_phases(config, data, store), phases_by_key(config, data, store)
    assert draft.run == exact.run
    assert len({node.key for node in draft.graph.nodes}) == len(draft.graph)

    def tasks(graph: Graph) -> list[tuple[Any, ...]]:
        return [(one.seed, one.group, one.effort, one.after, one.is_result) for one in graph.nodes]

    assert tasks(draft.graph) == tasks(exact.graph)


@pytest.mark.slow
def test_a_study_that_was_run_has_nothing_left_to_do_and_a_new_arm_its_own_tasks(tmp_path):
    config = config_of(tmp_path, defenses=["undefended"], attacks=["confidence", "lira"])
    shown = Shown()
    api.run(config, tmp_path / "out", tmp_path / "store", shown, threads=1)
    plan = api.plan(config, tmp_path / "store")
    assert plan.tasks == plan.stored == shown.computed
    assert (plan.seconds, plan.wall[1], plan.bytes) == (0.0, 0.0, 0.0)
    larger = config_of(tmp_path, defenses=["undefended", "ppb"], attacks=["confidence", "lira"])
    more = api.plan(larger, tmp_path / "store")
    assert more.stored == plan.tasks
    assert more.models == 2 + 4  # victim and shadow, and the reference models
    assert more.seconds > 0
    assert more.bytes > 0


@pytest.mark.slow
def test_what_grids_and_searches_find_is_planned_with_a_stand_in(tmp_path):
    pytest.importorskip("optuna")
    grid = {"kind": "ppb", "grid": {"alpha": [1.0, 2.0]}}
    config = config_of(tmp_path, defenses=["undefended", grid, {"kind": "auto", "trials": 2}], attacks=["confidence"])
    phases = planned_phases(config, config.data.load(), Store(tmp_path / "store"))
    titles = [{phase.graph.nodes[i].title for i in phase.run} for phase in phases]
    assert [sum("select" in title for title in some) for some in titles] == [3, 0, 0]
    assert "search auto" in titles[1]
    assert "prune under auto" in titles[2]
    assert not titles[0] & titles[1]


def test_a_plan_fits_into_80_columns(tmp_path):
    study: dict[str, Any] = table(write_data(tmp_path), **SMALL, attacks="full", seeds=list(range(4)))
    config = parse_study(study)
    plan = make_plan(config, planned_phases(config, config.data.load(), Store(tmp_path / "store")), {}, threads=1)
    console = Console(width=80, record=True, file=StringIO())
    console.print(plan_table(plan))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert not any(re.search(r"\d-$", line) for line in lines)
    assert "need not" in plan_sentences(plan)[0]

"""The cost model against what is trained: every record shown is planned, and every planned record is shown."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from small_study import table, write_data
from wemem import api
from wemem.config.parse import parse_study
from wemem.config.study import StudyConfig
from wemem.defenses import DPSGD, Undefended, make_defense
from wemem.models import make_model
from wemem.pipeline.cost import CostModel, expected_epochs, step_time, whole_chunks
from wemem.pipeline.progress import Silent
from wemem.store.entry import Entry
from wemem.store.key import Key
from wemem.store.store import Store
from wemem.study.grid_search import select_settings
from wemem.study.run import run_study
from wemem.training import Recipe

#: Few epochs, so that nothing stops early, and everything that trains models of its own.
STUDY: dict[str, Any] = {
    "training": {"epochs": 2, "batch_size": 64}, "finetune": {"epochs": 1, "batch_size": 64},
    "pruning": {"rounds": 2, "sparsity": [0.4, 0.6]}, "split": {"shadows": 2, "references": 4},
    "scores": {"models": 6}, "attacks": ["confidence", "lira"], "seeds": [0, 1],
    "defenses": ["undefended", "rmr", {"kind": "oosd", "teachers": 2, "held_out": 1, "references": 6}],
}  # fmt: skip


class Counting(Store):
    """A store that counts the records shown in all the trainings that are put into it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.shown = 0

    def put(self, key: Key, arrays: Mapping[str, Any], meta: Mapping[str, Any]) -> Entry:
        self.shown += meta.get("records_seen", 0)
        return super().put(key, arrays, meta)


class Announced(Silent):
    """The planned work, and the work of every stage by name."""

    def __init__(self) -> None:
        self.planned: list[float] = []
        self.begun: dict[str, float] = {}

    def plan(self, work: float) -> None:
        self.planned.append(work)

    def begin(self, stage: str, work: float) -> None:
        self.begun[stage] = work


def small(folder: Path, **changed: Any) -> StudyConfig:
    return parse_study(table(write_data(folder), **{**STUDY, **changed}))


@pytest.mark.parametrize("drawn_from", ["own", "pool"])
def test_planned_work_is_the_number_of_records_shown(drawn_from, tmp_path):
    progress, store = Announced(), Counting(tmp_path / "store")
    list(run_study(small(tmp_path, scores={"models": 6, "drawn_from": drawn_from}), store, progress))
    # subset models train on 0.7 of 180 records, and two thirds of 6 teachers' records are whole
    assert progress.planned == [pytest.approx(store.shown, rel=0.01)]
    assert progress.planned == [pytest.approx(sum(progress.begun.values()), rel=0.01)]


def test_selection_plans_the_victims_that_it_prunes_and_the_study_after_it(tmp_path):
    grid = {"kind": "ppb", "grid": {"alpha": [1.0, 2.0]}}
    config = small(tmp_path, defenses=["undefended", grid], attacks=["confidence"], seeds=[0])
    progress, store = Announced(), Counting(tmp_path / "store")
    data = config.data.load()
    chosen = select_settings(config, store, progress, data).config
    list(run_study(chosen, store, progress, data))
    # the unpruned models are planned again after the selection, and found in the store
    assert progress.planned[0] == store.shown
    assert (
        progress.planned[0] - progress.planned[1]
        == CostModel(config, 180).pruning(1, Undefended(), config.prunings) * 3
    )


def test_early_stopping_shortens_the_plan_and_fixed_lengths_do_not():
    assert expected_epochs(Recipe(epochs=7)) == 7
    assert expected_epochs(Recipe(epochs=100)) < expected_epochs(Recipe(epochs=100, patience=None)) == 100


def test_work_grows_in_proportion_to_records_and_models(tmp_path):
    config = small(tmp_path)
    one, two = CostModel(config, 50), CostModel(config, 100)
    assert two.preparation() == pytest.approx(2 * one.preparation())
    assert one.dense(6) == 6 * one.dense(1)
    assert whole_chunks(1) == whole_chunks(16) == 16


def test_subset_models_are_trained_for_every_shadow_and_only_for_defenses_that_read_scores(tmp_path):
    own, pool = (
        CostModel(small(tmp_path, scores={"models": 6, "drawn_from": how}, attacks=["confidence"]), 100)
        for how in ("own", "pool")
    )
    plain = CostModel(small(tmp_path, defenses=["undefended"], attacks=["confidence"]), 100)
    assert own.shadow_scores() == 2 * pool.shadow_scores() == own.dense(2 * 6 * 0.7)
    assert own.preparation() - plain.preparation() == pytest.approx(3 * own.subset_models())
    assert plain.preparation() == plain.originals()


def test_scores_from_a_file_cost_the_defender_nothing(tmp_path):
    config = small(tmp_path, scores={"models": 6, "file": "scores.csv"})
    assert CostModel(config, 100).defender_scores() == 0 < CostModel(config, 100).shadow_scores()


def test_a_step_with_every_records_own_gradient_takes_longer_and_is_no_more_work(tmp_path):
    cost, pruning = CostModel(small(tmp_path), 100), small(tmp_path).pruning.to(0.5, Recipe(epochs=1))
    assert step_time(DPSGD()) > step_time(Undefended()) == 1
    assert cost.fine_tuning(1, DPSGD(), pruning) == cost.fine_tuning(1, Undefended(), pruning)
    assert cost.teaching(1, make_defense("oosd", {"teachers": 2, "held_out": 1, "components": 0})) == cost.dense(1)


def test_teachers_cost_trainings_where_they_are_networks(tmp_path):
    default = make_defense("oosd", {"teachers": 5, "held_out": 2})
    assert CostModel(small(tmp_path), 100).teaching(1, default) == 0
    tokens = CostModel(replace(small(tmp_path), model=make_model("text_transformer", {})), 100)
    assert tokens.teaching(1, default) == 3 * tokens.dense(1)


def test_a_run_in_one_process_plans_once(tmp_path):
    progress = Announced()
    api.run(
        small(tmp_path, seeds=[0], defenses=["undefended"], attacks=["confidence"]), tmp_path / "out", None, progress
    )
    assert len(progress.planned) == 1

"""Settings selected from grids: the rule, a planted best setting, and a selection that is killed and goes on."""

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from small_study import table, without_times, write_data
from test_resume import Counted, KilledError, killed_after
from wemem import api
from wemem.config.parse import parse_study
from wemem.config.study import StudyConfig
from wemem.data.split import Role
from wemem.errors import InputError
from wemem.pipeline.progress import Silent
from wemem.pipeline.pruner import Pruner
from wemem.reporting.selection import chosen_settings
from wemem.results.schema import results_schema
from wemem.store.store import Store
from wemem.study.grid_search import SettingResult, choose, select_settings
from wemem.study.run import run_study

pytestmark = pytest.mark.slow

#: The share of the hard label: 1 learns it and memorizes, 0 learns what others predict.
GRID = {
    "kind": "oosd",
    "teachers": 2,
    "held_out": 1,
    "clusters": 5,
    "views": 0,
    "components": 0,
    "grid": {"hard": [1.0, 0.0]},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("selection")


@pytest.fixture(scope="module")
def study(folder: Path) -> dict[str, Any]:
    hard = {"epochs": 8, "batch_size": 64, "patience": None, "learning_rate": 0.02}
    return table(
        write_data(folder), seeds=[0, 1], attacks=["confidence"], defenses=["undefended", GRID],
        selection={"max_accuracy_drop": 0.5}, finetune=hard, pruning={"rounds": 2}, split={"shadows": 1},
    )  # fmt: skip


@pytest.fixture(scope="module")
def told(study: dict[str, Any], folder: Path) -> dict[str, Any]:
    return api.run(parse_study(study), folder / "out")


def test_planted_setting_that_leaks_less_is_chosen_and_alone_is_run(told):
    hard, teacher_log_probs = told["selection"]["candidates"]
    assert teacher_log_probs["dev_auc"] < hard["dev_auc"] - 0.05
    assert (hard["chosen"], teacher_log_probs["chosen"]) == (False, True)
    assert (hard["qualified"], teacher_log_probs["qualified"]) == (True, True)
    assert [run["settings"] for run in told["runs"] if run["label"] == "oosd"] == [teacher_log_probs["settings"]] * 2
    assert teacher_log_probs["settings"]["hard"] == 0.0
    assert [run["label"] for run in told["runs"]] == ["dense", "undefended", "oosd"] * 2


def test_results_with_a_selection_are_of_the_schema_and_say_what_was_chosen(told):
    Draft202012Validator(results_schema()).validate(told)
    assert told["selection"]["candidates"][0]["seeds"] == [0, 1]
    assert parse_study(told["study"]).grids["oosd"][0].settings["hard"] == 1.0
    rule, sentence = chosen_settings(told)
    assert "at most 50 points" in rule
    assert sentence.startswith("oosd: hard=0.0 of 2 settings, dev accuracy ")


def test_none_that_qualifies_gives_the_most_accurate_and_says_so(study, folder, told):
    harsh = {"kind": "dpsgd", "noise": 100.0, "grid": {"clip": [10, 20]}}
    strict = study | {"defenses": ["undefended", harsh], "selection": {"max_accuracy_drop": 0.0}, "seeds": [0]}
    strict["finetune"] = {"epochs": 2, "optimizer": "sgd", "learning_rate": 0.05}
    found = api.run(parse_study(strict), folder / "strict/out")
    candidates = found["selection"]["candidates"]
    assert not any(one["qualified"] for one in candidates)
    (chosen,) = (one for one in candidates if one["chosen"])
    assert chosen["dev_accuracy"] == max(one["dev_accuracy"] for one in candidates)
    assert "none of which keeps that accuracy, so the most accurate one" in chosen_settings(found)[1]


def test_victim_is_pruned_alone_and_no_audited_record_is_looked_at(study, tmp_path, monkeypatch):
    seen = []
    plan = Pruner.plan

    def watched(self, title, dense, split, *args, **kwargs):
        seen.append((title, split))
        return plan(self, title, dense, split, *args, **kwargs)

    monkeypatch.setattr(Pruner, "plan", watched)
    config = parse_study(study | {"seeds": [0]})
    select_settings(config, Store(tmp_path / "store"), Silent(), config.data.load())
    assert [title.split(" hard")[0] for title, _ in seen] == ["select undefended"] + [
        "select oosd: teachers=2 held_out=1 clusters=5 start=fresh temperature=1.4"
    ] * 2
    assert all(split.num_models == 1 and not (split.roles == Role.AUDIT).any() for _, split in seen)


def test_killed_in_the_middle_of_a_selection_it_goes_on_and_chooses_the_same(
    study, folder, told, tmp_path, monkeypatch
):
    config, heard = parse_study(study), Counted()
    with monkeypatch.context() as patch:
        patch.setattr(Store, "put", killed_after(Store.put, 6))
        with pytest.raises(KilledError):
            api.run(config, tmp_path / "out", None, heard)
    assert not (tmp_path / "out").exists()
    again = Counted()
    select_settings(config, Store(tmp_path / ".store"), again, config.data.load())
    # each seed: dense models, undefended, the teachers of both settings, their predictions, two settings
    assert (heard.computed > 0, heard.computed + again.computed) == (True, 2 * 6)
    found = api.run(config, tmp_path / "out")
    assert without_times(found) == without_times(told)


def test_rule_of_lowest_auc_among_those_that_keep_the_accuracy():
    tried = [SettingResult(0.60, 0.90, 1), SettingResult(0.59, 0.70, 1), SettingResult(0.58, 0.55, 1)]
    assert choose(tried, 0.60 - 0.01) == (1, [True, True, False])
    assert choose(tried, 0.0) == (2, [True, True, True])


def test_rule_of_the_most_accurate_where_none_keeps_the_accuracy():
    tried = [SettingResult(0.50, 0.90, 1), SettingResult(0.55, 0.95, 1), SettingResult(0.40, 0.5, 1)]
    assert choose(tried, 0.60) == (1, [False, False, False])


def test_ties_go_to_the_other_figure_and_then_to_the_first():
    assert choose([SettingResult(0.6, 0.7, 1), SettingResult(0.7, 0.7, 1)], 0.5)[0] == 1
    assert choose([SettingResult(0.6, 0.7, 1), SettingResult(0.6, 0.6, 1)], 0.9)[0] == 1
    assert choose([SettingResult(0.6, 0.7, 1), SettingResult(0.6, 0.7, 1)], 0.5)[0] == 0
    assert choose([SettingResult(0.6, 0.7, 1), SettingResult(0.6, 0.7, 1)], 0.9)[0] == 0


def test_a_drop_of_exactly_what_is_allowed_is_allowed_whatever_the_rounding():
    assert 0.3 < 0.1 + 0.2
    assert choose([SettingResult(0.3, 0.7, 1)], 0.1 + 0.2)[1] == [True]


def grid(**given: Any) -> StudyConfig:
    return parse_study({"data": {"source": "digits"}, "attacks": "threshold", "defenses": [given]})


def test_grid_is_every_combination_each_checked_as_usual():
    made = grid(kind="swmr", width=0.3, grid={"top": [0.1, 0.2], "decay": [0.1, 0.2, 0.3]})
    assert [(d.settings["top"], d.settings["decay"]) for d in made.grids["swmr"]] == [
        (top, decay) for top in (0.1, 0.2) for decay in (0.1, 0.2, 0.3)
    ]
    assert {d.settings["width"] for d in made.grids["swmr"]} == {0.3}
    assert made.defenses["swmr"] == made.grids["swmr"][0]
    assert parse_study(made.table) == made


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "ppb", "grid": 3}, "to be a table"),
        ({"kind": "ppb", "grid": {}}, "to be a table"),
        ({"kind": "ppb", "grid": {"alpha": 3}}, "list of values"),
        ({"kind": "ppb", "grid": {"alpha": []}}, "list of values"),
        ({"kind": "ppb", "grid": {"alhpa": [1]}}, "did you mean 'alpha'"),
        ({"kind": "ppb", "grid": {"alpha": [1, -1]}}, "alpha must be"),
        ({"kind": "ppb", "grid": {"alpha": [1, 1.0]}}, "got one twice"),
        ({"kind": "ppb", "alpha": 3, "grid": {"alpha": [1]}}, "got both"),
        ({"kind": "ppb", "grid": {"alpha": list(range(300))}}, "at most 256"),
        ({"kind": "ppb", "references": "many"}, "whole number"),
        ({"kind": "auto", "grid": {"max_accuracy_drop": [0.01, 0.02]}}, "got one of budgets"),
    ],
)
def test_grids_that_cannot_be_are_refused(given: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        grid(**given)


def test_a_setting_of_a_grid_that_does_not_fit_is_refused_before_anything_is_trained(study, tmp_path):
    wide = {"kind": "rsw", "grid": {"width": [0.3, 5000]}}
    with pytest.raises(InputError, match="smallest class"):
        api.run(parse_study(study | {"defenses": ["undefended", wide]}), tmp_path / "out")
    assert not list((tmp_path / ".store").glob("*/*/*"))


def test_a_study_with_grids_is_not_run_before_one_setting_is_chosen(study, tmp_path):
    with pytest.raises(InputError, match="select_settings"):
        list(run_study(parse_study(study), Store(tmp_path), Silent()))


def test_chosen_settings_stand_in_the_study_that_is_run(study, told, folder):
    config = parse_study(study)
    chosen = select_settings(config, Store(folder / ".store"), Silent(), config.data.load()).config
    assert chosen.grids == {}
    assert parse_study(chosen.table) == chosen

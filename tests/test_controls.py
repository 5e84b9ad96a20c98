"""The control arms: fine-tuning alone and pruning at once, and the part of a leak that each cause has."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from safetensors.numpy import load_file

from results_example import make_results
from small_study import table, write_data
from wemem import api
from wemem.config.parse import parse_study
from wemem.errors import InputError
from wemem.reporting.summary import plain_summary
from wemem.results.arms import arms
from wemem.results.comparison import leaders
from wemem.results.controls import effects
from wemem.results.gate import Limits, check
from wemem.results.schema import results_schema

DEFAULT = ["unpruned", "one_shot"]


def study(**changed: Any):
    return parse_study({"data": {"source": "digits"}, "attacks": ["confidence"], "defenses": ["undefended"], **changed})


def labels(config: Any) -> list[tuple[str, float]]:
    return [(label, pruning.schedule.sparsity) for label, pruning in config.arms]


def with_controls(unpruned: float = 0.5, one_shot: float = 0.52) -> dict[str, Any]:
    """The example's results (TPR: dense 40.2 %, undefended 54.6 %) with both controls attacked by LiRA."""
    results = make_results((0, 1, 2), ("lira",))
    added = []
    for label, sparsity, tpr in (("unpruned", 0.0, unpruned), ("one_shot", 0.6, one_shot)):
        for run in (run for run in results["runs"] if run["label"] == "undefended"):
            shifted = tpr + 0.005 * run["seed"] + 0.001 * (run["seed"] == 1)
            audit = run["attacks"]["lira"]
            rates = {**audit["tpr_at_fpr"], "0.01": shifted}
            added.append(
                {
                    **run, "defense": label, "label": label, "sparsity": sparsity,
                    "attacks": {"lira": {**audit, "tpr_at_fpr": rates}},
                }
            )  # fmt: skip
    return {**results, "runs": [*results["runs"], *added]}


def test_every_study_has_both_controls_unless_it_leaves_them_out():
    assert labels(study()) == [("unpruned", 0.0), ("one_shot", 0.6), ("undefended", 0.6)]
    assert labels(study(controls=[])) == [("undefended", 0.6)]
    assert labels(study(controls=["unpruned"])) == [("unpruned", 0.0), ("undefended", 0.6)]


def test_of_several_sparsities_each_has_its_one_shot_control_and_all_share_the_unpruned_one():
    assert labels(study(pruning={"sparsity": [0.5, 0.7]})) == [
        ("unpruned", 0.0), ("one_shot", 0.5), ("undefended", 0.5), ("one_shot", 0.7), ("undefended", 0.7),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pruning", "left"),
    [({"schedule": "one_shot"}, ["unpruned"]), ({"rounds": 1}, ["unpruned"]), ({"sparsity": 0.0}, [])],
)
def test_a_control_that_prunes_as_the_study_does_is_left_out(pruning, left):
    assert [label for label, _ in labels(study(pruning=pruning))] == [*left, "undefended"]


def test_controls_have_the_rounds_and_recipe_of_the_study():
    config = study(pruning={"rounds": 4}, finetune={"epochs": 3})
    for _, pruning in config.arms:
        assert (pruning.schedule.rounds, pruning.recipe) == (4, config.finetune)


def test_controls_are_attacked_by_as_many_references_as_undefended_pruning():
    config = study(defenses=[{"kind": "undefended", "references": 64}, "rmr"])
    assert [config.references_of(label) for label in (*DEFAULT, "rmr", "dense")] == [64, 64, 16, 64]


def test_a_study_survives_its_table_with_and_without_controls():
    for config in (study(), study(controls=[])):
        assert parse_study(config.table) == config


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"controls": ["dense"]}, "controls"),
        ({"controls": ["unpruned", "unpruned"]}, "expected different controls"),
        ({"defenses": [{"kind": "rmr", "label": "one_shot"}]}, "give it another label, or leave the control out"),
    ],
)
def test_controls_that_cannot_be_are_refused(changed, message):
    with pytest.raises(InputError, match=message):
        study(**changed)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("controls")
    small = table(write_data(folder), controls=DEFAULT, defenses=["undefended"], attacks=["confidence", "lira"])
    return folder / "out", api.run(parse_study(small), folder / "out")


def test_results_with_controls_are_of_the_schema(told):
    Draft202012Validator(results_schema()).validate(told[1])
    assert [run["label"] for run in told[1]["runs"]] == ["dense", "unpruned", "one_shot", "undefended"]


def test_unpruned_weights_are_all_there_and_one_shot_ones_are_pruned_from_the_first_round(told):
    out, results = told
    runs = {run["label"]: run for run in results["runs"]}
    assert [one["sparsity"] for one in runs["unpruned"]["rounds"]] == [0.0] * 3
    assert [one["sparsity"] for one in runs["one_shot"]["rounds"]] == [runs["undefended"]["sparsity"]] * 3
    assert not (out / "models/unpruned-sparsity0.0-seed0.masks.safetensors").exists()
    masks = load_file(out / "models/one_shot-sparsity0.6-seed0.masks.safetensors")
    assert 1 - sum(mask.sum() for mask in masks.values()) / sum(mask.size for mask in masks.values()) >= 0.59


def test_first_round_of_iterative_pruning_is_the_first_round_without_pruning(told):
    first = {run["label"]: run["rounds"][0] for run in told[1]["runs"] if run["rounds"]}
    assert first["unpruned"] == first["undefended"] != first["one_shot"]


def test_controls_are_audited_adaptively_and_cost_no_defense_time(told):
    for run in told[1]["runs"][1:3]:
        assert run["certificate"]["adaptive"]
        assert run["seconds"]["defense_overhead"] is None


def test_effects_are_differences_of_arms_that_differ_by_one_cause():
    found = {effect.cause: effect for effect in effects(arms(with_controls()), "tpr_at_0.01")}
    shift = 0.001 / 3
    assert found["reuse"].change == pytest.approx(0.5 - 0.402 + shift)
    assert found["pruning"].change == pytest.approx(0.546 - 0.5 - shift)
    assert found["schedule"].change == pytest.approx(0.546 - 0.52 - shift)
    assert [found[cause].sign for cause in ("reuse", "pruning", "schedule")] == [1, 1, 1]
    assert found["pruning"].exposures == 1


def test_pruning_that_adds_nothing_is_said_to_add_nothing():
    found = {effect.cause: effect for effect in effects(arms(with_controls(unpruned=0.546)), "tpr_at_0.01")}
    assert found["pruning"].change == pytest.approx(0, abs=1e-3)
    assert found["pruning"].sign == 0
    lines = plain_summary(with_controls(unpruned=0.546))
    (line,) = (line for line in lines if "fine-tuning again without pruning adds" in line)
    assert "pruning adds -0.0 points (not distinguishable from none)" in line


def test_without_controls_no_cause_is_named():
    assert effects(arms(make_results((0, 1, 2), ("lira",))), "tpr_at_0.01") == []
    assert not any("fine-tuning again" in line for line in plain_summary(make_results((0, 1))))


def test_controls_are_neither_leaders_nor_gated_unless_named():
    results = with_controls(unpruned=0.01, one_shot=0.01)
    assert not set(leaders(results)) & {*DEFAULT, "dense"}
    assert not any(one.label in DEFAULT for one in check(results, Limits(max_tpr=0.9)))

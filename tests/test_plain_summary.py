"""The sentences at the end of a run: what they tell apart, and what they admit."""

import re
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from scipy.stats import t

from results_example import ATTACKS, drawn, make_results, make_run
from wemem.reporting.summary import dense_warning, plain_summary, recommended
from wemem.results.arms import arms
from wemem.results.differences import may_leak_least
from wemem.results.schema import results_schema


def noisy(results: dict[str, Any], spread: float) -> dict[str, Any]:
    """With runs that differ as trained models do."""
    rng = np.random.default_rng(0)
    for run in results["runs"]:
        run["accuracy"]["test"] += spread * rng.normal()
        for audit in run["attacks"].values():
            audit["balanced_accuracy"] += spread * rng.normal()
            audit["tpr_at_fpr"]["0.01"] += spread * rng.normal()
    return results


def test_summary_says_that_pruning_leaks_more_where_intervals_are_apart():
    told = plain_summary(make_results())
    assert "60 % sparsity without a defense, the model leaks more than the dense one" in told[0]
    assert "84.1 %" in told[0]
    assert "75.8 %" in told[0]
    assert "54.6 %" in told[0]
    assert told[-1].startswith("One seed")


def test_summary_does_not_tell_apart_what_overlaps():
    results = make_results()
    results["runs"] = [run for run in results["runs"] if run["defense"] != "undefended"]
    results["runs"].append(make_run("undefended", 0.6, 0.76, 0.41, 0, ATTACKS, 452))
    told = plain_summary(results)
    assert "leaks neither distinguishably more nor less than the dense one" in told[0]
    assert "rsw leaks least" in told[1]
    assert "not distinguishable from rmr and swmr" in told[1]
    assert "2.5 points above undefended, not distinguishable" in told[3]


def test_summary_tells_when_its_two_measures_disagree():
    results = make_results()
    worst = results["runs"][1]["worst"]["tpr_at_0.01"]
    worst["value"], worst["ci"] = 0.41, [0.37, 0.45]
    told = plain_summary(results)[0]
    assert "leaks more than the dense one by balanced accuracy, and leaks neither" in told


def test_seed_by_seed_differences_find_what_overlapping_intervals_hide():
    results = make_results((0, 1, 2, 3))
    for run in results["runs"]:
        luck, own = 0.1 * run["seed"] / 4, 0.001 * run["seed"] * (run["defense"] == "rsw")
        run["accuracy"]["test"] += luck + own
        for audit in run["attacks"].values():
            audit["balanced_accuracy"] += luck + own
    rsw, swmr = (next(arm for arm in arms(results) if arm.label == label) for label in ("rsw", "swmr"))
    assert rsw.strongest("balanced_accuracy")[1].high > swmr.strongest("balanced_accuracy")[1].low
    assert "rsw leaks least" in plain_summary(results)[1]
    assert "swmr" not in plain_summary(results)[1]


def test_noise_is_not_called_a_difference():
    results = make_results((0, 1, 2))
    for run in results["runs"]:
        for audit in run["attacks"].values():
            audit["balanced_accuracy"], audit["tpr_at_fpr"]["0.01"] = 0.5, 0.01
        run["accuracy"]["test"] = 0.6
    told = plain_summary(noisy(results, 0.002))
    assert "neither distinguishably more nor less" in told[0]
    assert all("distinguishably less than every" not in sentence for sentence in told)
    assert all("not distinguishable" in sentence or "no defense" in sentence for sentence in told[1:3])


def attacked_in_turn(results: dict[str, Any], found: dict[str, list[float]]) -> dict[str, Any]:
    """With shares found of all targets in turn, by label and seed; LiRA is the stronger attack, RMIA finds half."""
    for run in results["runs"]:
        if run["label"] in found:
            share = found[run["label"]][run["seed"]]
            lira, rmia = ({"value": v, "ci": [v - 0.01, v + 0.01]} for v in (share, share / 2))
            told = {"targets": 17, "records": 100, "auc": {"value": 0.6, "ci": [0.5, 0.7]}}
            run["leave_one_out"] = {"rmia": {**told, "tpr_at_0.01": rmia}, "lira": {**told, "tpr_at_0.01": lira}}
    return results


def test_targets_in_turn_have_a_verdict_of_their_own():
    found = {"undefended": [0.30, 0.31, 0.29], "rsw": [0.05, 0.06, 0.05], "rmr": [0.04, 0.05, 0.0401]}
    told = plain_summary(attacked_in_turn(make_results((0, 1, 2)), found))
    # 25 points on average, and as many on every seed but for one; rsw less rmr is 1.0, 1.0 and 0.99
    gap = np.array(found["undefended"]) - np.array(found["rmr"])
    assert gap.mean() - t.ppf(1 - 0.025 / 2, 2) * gap.std(ddof=1) / np.sqrt(3) > 0
    assert told[3] == (
        "Over 51 leave-one-out targets, by TPR at 1 % FPR, rmr leaks least, 4.3 % against 30.0 % without a defense, "
        "distinguishably less than every other."
    )
    found["rsw"] = [0.05, 0.04, 0.06]
    told = plain_summary(attacked_in_turn(make_results((0, 1, 2)), found))
    assert told[3].endswith("but is not distinguishable from rsw.")


def test_targets_in_turn_of_one_seed_are_told_apart_by_their_intervals():
    told = plain_summary(attacked_in_turn(make_results(), {"undefended": [0.30], "rsw": [0.05], "rmr": [0.065]}))
    assert told[3].startswith("Over 17 leave-one-out targets, by TPR at 1 % FPR, rsw leaks least, 5.0 % against 30.0 %")
    assert told[3].endswith("but is not distinguishable from rmr.")
    told = plain_summary(attacked_in_turn(make_results(), {"undefended": [0.04], "rsw": [0.05]}))
    assert told[3].endswith("no defense leaks less than pruning without one (4.0 %).")


@pytest.mark.parametrize("found", [{}, {"dense": [0.2], "rsw": [0.1]}])
def test_a_single_arm_attacked_in_turn_is_compared_with_nothing(found):
    assert not any("leave-one-out targets," in line for line in plain_summary(attacked_in_turn(make_results(), found)))


def test_arms_that_fewer_reference_models_attacked_are_said_to_look_safer():
    results = make_results(attacks=("confidence", "lira"))
    for run in results["runs"]:
        run["attacks"]["lira"]["reference_models"] = 16
    assert "reference models" not in plain_summary(results)[-1]
    results["runs"][1]["attacks"]["lira"]["reference_models"] = 64
    assert "16 reference models against some and 64 against others: more find more" in plain_summary(results)[-1]


def test_equal_differences_of_all_seeds_are_no_certainty():
    results = make_results((0, 1))
    assert "not distinguishable from" in plain_summary(results)[1]


def test_summary_admits_when_no_defense_helps():
    results = make_results()
    for run in results["runs"][2:]:
        run["worst"]["balanced_accuracy"].update(value=0.95, ci=[0.93, 0.97])
    assert "no defense leaks less than pruning without one" in plain_summary(results)[1]


@pytest.mark.parametrize(("missing", "sentence"), [
    ("dense", "The model before pruning was not attacked"),
    ("undefended", "Pruning without a defense was not attacked"),
])  # fmt: skip
def test_missing_yardsticks_are_named(missing: str, sentence: str):
    results = make_results()
    results["runs"] = [run for run in results["runs"] if run["defense"] != missing]
    assert plain_summary(results)[0].startswith(sentence)
    assert missing not in drawn(results)


@pytest.mark.parametrize("defenses", [{"dense"}, {"undefended"}, {"rsw"}, {"dense", "undefended"}, {"rsw", "rmr"}])
@pytest.mark.parametrize("attacks", [(), ("lira",), ATTACKS])
@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_summary_has_two_to_five_entries_whatever_was_run(
    defenses: set[str], attacks: tuple[str, ...], seeds: tuple[int, ...]
):
    results = make_results(seeds, attacks)
    results["runs"] = [run for run in results["runs"] if run["defense"] in defenses]
    told = plain_summary(results)
    assert 2 <= len(told) <= 5
    assert all(sentence.endswith(".") and "nan" not in sentence for sentence in told)
    assert "Test accuracy" in told[-2]
    drawn(results, 80)


def test_no_attacks_leave_no_word_on_leakage():
    told = plain_summary(make_results(attacks=()))
    assert told[0] == "No attack was run, so leakage was not measured."
    assert not any("leaks least" in sentence for sentence in told)


def with_tables(results: dict[str, Any], shares: dict[str, float]) -> dict[str, Any]:
    """Arms whose leave-one-out targets and groups of records have effects in common, and little of their own."""
    rng = np.random.default_rng(0)
    common = 0.02 * rng.normal(size=(17, 1)) + 0.02 * rng.normal(size=10)
    for run in results["runs"]:
        if run["label"] in shares:
            table = shares[run["label"]] + common + 0.002 * rng.normal(size=(17, 10))
            value = float(table.mean())
            measured = {"value": value, "ci": [value - 0.03, value + 0.03], "pseudo_values": table.tolist()}
            run["leave_one_out"] = {"lira": {"targets": 17, "records": 900, "auc": measured, "tpr_at_0.01": measured}}
            run["reference_accuracy"] = {"targets": 17, **measured}
    return results


def test_an_arm_that_costs_more_over_all_models_than_by_its_victim_is_not_recommended():
    results = make_results()
    by_victim = recommended(results)
    assert by_victim is not None
    assert by_victim.defense != "undefended"
    shares = {run["label"]: 0.2 for run in results["runs"] if run["label"] != "dense"}
    best = recommended(with_tables(results, {**shares, by_victim.label: 0.17}))
    assert best is not None
    assert best.label != by_victim.label


def test_one_seed_tells_arms_apart_by_targets_and_records_that_they_have_in_common():
    results = with_tables(make_results(), {"undefended": 0.2, "rsw": 0.15, "swmr": 0.1498})
    told = plain_summary(results)
    (line,) = [line for line in told if line.startswith("Over 17 leave-one-out targets")]
    assert line.endswith(("but is not distinguishable from rsw.", "but is not distinguishable from swmr."))
    assert "points below undefended over 17 leave-one-out models" in told[-2]
    assert "not distinguishable" not in told[-2]
    Draft202012Validator(results_schema()).validate(results)


def test_summary_says_which_difference_it_would_have_found():
    told = plain_summary(
        with_tables(make_results(attacks=("lira",)), dict.fromkeys(("undefended", "rsw", "rmr", "swmr"), 0.2))
    )
    found = re.search(r"at a true difference of ([0-9.]+) points of TPR at 1 % FPR or ([0-9.]+) points of", told[-1])
    assert found is not None
    assert 0.05 < float(found[1]) < 1
    assert "cannot say which difference it would have found" in plain_summary(make_results())[-1]


def test_a_defense_of_answers_is_never_first_without_saying_so():
    results = make_results()
    for run in results["runs"]:
        run["altered_answers"] = run["label"] == "rsw"
    for line in plain_summary(results)[1:3]:
        assert "rsw leaks least" in line
        assert "rsw protects answers to queries only" in line
        assert "Of those that protect the weights, swmr leaks least" in line


def test_a_model_at_chance_is_said_to_show_no_leak():
    results = make_results()
    for run in results["runs"]:
        for worst in run["worst"].values():
            worst["value"] = worst["chance"]
    told = plain_summary(results)
    assert "the model shows no leak above chance by any metric, which does not prove that there is none" in told[0]
    assert any("no more than by chance" in line or "no defense leaks less" in line for line in told[1:3])


def test_equal_arms_have_one_distinguishable_leader_as_seldom_as_it_says():
    """Eight equal arms over 17 targets: the confidence set of the best holds one arm in at most 5 % of studies."""
    rng, alone = np.random.default_rng(0), 0
    template = make_results(attacks=("lira",))["runs"][0]
    for _ in range(60):
        runs = []
        for label in "abcdefgh":
            table = 0.1 + 0.02 * rng.normal(size=(17, 1)) + 0.02 * rng.normal(size=(17, 10))
            measured = {"value": float(table.mean()), "ci": [0.0, 1.0], "pseudo_values": table.tolist()}
            runs.append(
                {
                    **template, "label": label, "defense": label,
                    "leave_one_out": {"lira": {"targets": 17, "records": 900, "tpr_at_0.01": measured}},
                }
            )  # fmt: skip
        alone += len(may_leak_least(arms({"runs": runs}), "tpr_at_0.01", over_targets=True)) == 1
    assert alone <= 60 * 0.05 + 3 * np.sqrt(60 * 0.05 * 0.95)


def test_a_leak_that_only_leave_one_out_targets_or_another_metric_show_is_not_called_none():
    def at_chance() -> dict[str, Any]:
        results = make_results()
        for run in results["runs"]:
            for worst in run["worst"].values():
                worst["value"] = worst["chance"]
        return results

    by_targets, by_auc = at_chance(), at_chance()
    for run in by_targets["runs"]:
        measured = {"value": 0.54, "ci": [0.51, 0.57]}
        run["leave_one_out"] = {"lira": {"targets": 9, "records": 900, "auc": measured}}
    for run in by_auc["runs"]:
        run["worst"]["auc"]["value"] = run["worst"]["auc"]["chance_high"] + 0.01
    for results in (by_targets, by_auc):
        assert "shows no leak" not in plain_summary(results)[0]
        assert dense_warning(results) is not None
    assert dense_warning(at_chance()) is None

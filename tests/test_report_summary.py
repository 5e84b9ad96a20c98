"""The sentences of a report: what it warns of, recommends and shows only where there is something."""

import pytest

from report_example import NONMEMBERS
from results_example import make_results, make_run, sources
from wemem.reporting.content import PANELS, featured
from wemem.reporting.report import report_content
from wemem.reporting.summary import dense_warning, report_summary
from wemem.results.arms import arms
from wemem.results.combine import combine


def test_the_dense_model_is_warned_of_where_it_leaks_and_only_there():
    results = make_results((0, 1))
    warning = dense_warning(results)
    assert warning is not None
    assert "40.5 % of its training records" in warning
    assert "no defense in this report protects it" in warning
    # as good as the strongest of ten guesses: no leak, and no warning
    dense = [run for run in results["runs"] if run["label"] == "dense"]
    for run in dense:
        for audit in run["attacks"].values():
            audit["balanced_accuracy"], audit["auc"] = 0.53, 0.54
            audit["tpr_at_fpr"] |= {"0.01": 0.03, "0.001": 0.01}
    assert dense_warning(results) is None
    for audit in dense[0]["attacks"].values():
        audit["tpr_at_fpr"]["0.01"] = 0.05
    assert dense_warning(results) is not None


def test_results_without_the_level_of_the_strongest_warn_where_every_run_is_above_a_single_attack_at_chance():
    results = make_results((0, 1))
    for run in results["runs"]:
        for worst in run["worst"].values():
            del worst["chance"], worst["chance_high"]
    assert dense_warning(results) is not None
    (shown, _) = [run for run in results["runs"] if run["label"] == "dense"]
    for metric, chance in (("balanced_accuracy", 0.5), ("auc", 0.5), ("tpr_at_0.01", 0.01), ("tpr_at_0.001", 0.001)):
        shown["worst"][metric]["ci"] = [chance, 1.0]
    assert dense_warning(results) is None


def test_runs_that_differ_much_do_not_hide_that_each_shows_a_leak_of_the_dense_model():
    results = make_results((0, 1))
    for run, value in zip((r for r in results["runs"] if r["label"] == "dense"), (0.6, 0.99), strict=True):
        for name, audit in run["attacks"].items():
            audit["balanced_accuracy"], audit["balanced_accuracy_ci"] = value, [value - 0.02, 1.0]
            run["worst"]["balanced_accuracy"].update(attack=name, value=value, ci=[value - 0.02, 1.0])
    assert dense_warning(results) is not None


def test_the_summary_names_what_protects_best_by_each_headline_and_what_it_costs():
    told = report_summary(make_results())
    assert [line.split(",")[0] for line in told["protects"]] == [
        "By balanced accuracy", "By TPR at 1 % FPR", "By TPR at 0.1 % FPR",
    ]  # fmt: skip
    assert all("rsw leaks least" in line for line in told["protects"])
    assert "rsw 62.5 % (2.6 points above undefended" in told["costs"][0]
    assert told["costs"][1] == "Fine-tuning time against undefended: rsw -4.0 s (to 12.1 s)."
    assert "5,010 records" in told["measured"][0]
    assert "3 settings of 3 defenses" in told["measured"][0]


def test_the_leak_of_a_model_that_stands_alone_is_told():
    results = make_results()
    results["runs"] = [make_run("unknown", 0.6, 0.81, 0.3, 0, ("confidence", "lira"), NONMEMBERS)]
    assert "balanced accuracy of 81.0 %" in report_summary(results)["leaks"][1]
    assert len(report_summary(make_results())["leaks"]) == 1


def test_a_protection_that_ruins_the_model_is_not_praised_alone():
    results = make_results()
    ruined = make_run("dpsgd", 0.05, 0.51, 0.011, 0, ("confidence", "lira"), NONMEMBERS)
    results["runs"].append(ruined)
    told = report_summary(results)
    assert all("dpsgd leaks least" in line for line in told["protects"])
    cheaper = [line for line in told["costs"] if "dpsgd costs more" in line]
    assert len(cheaper) == 2
    assert all("rsw leaks least" in line for line in cheaper)


def test_optional_parts_appear_where_results_have_them():
    results = make_results((0, 1))
    candidate = {
        "kind": "rsw", "label": "rsw", "settings": {"width": 0.3}, "seeds": [0], "dev_accuracy": 0.6, "dev_auc": 0.7,
        "seconds": 1.0, "qualified": True, "chosen": True,
    }  # fmt: skip
    rule = {"max_accuracy_drop": 0.02, "undefended_dev_accuracy": 0.63}
    results["selection"] = {"rule": rule, "candidates": [candidate]}
    results["runs"][2]["accuracy"]["test"] += 0.01  # seeds that differ by the same have no interval to draw
    for run in results["runs"]:
        run["peak_memory_mib"], run["seconds"]["teachers"] = 512.0, 3.0
        for one in run["rounds"]:
            one["confidence_auc"] = 0.7 + 0.01 * run["seed"]
    content = report_content(combine(sources(results)))
    assert content["selection"][0]["floor"] == pytest.approx(0.61)
    assert content["rounds"][0]["rounds"][0]["confidence_auc"]["value"] == pytest.approx(0.705)
    assert content["time"][1]["teachers_seconds"] == {"mean": 3.0, "least": 3.0, "most": 3.0}
    assert not any("memory" in line or "after each" in line for line in content["not_measured"])
    names = [figure["name"] for figure in content["figures"]]
    assert {"selection", "rounds-confidence_auc", "rounds-test_accuracy", "pairs-1"} <= set(names)


def test_all_targets_in_turn_stand_beside_the_victim():
    results = make_results((0, 1))
    for run in results["runs"]:
        value = 0.4 + 0.1 * run["seed"]
        told = {"targets": 17, "records": 100, "auc": {"value": value, "ci": [0.3, 0.6]}}
        run["leave_one_out"] = {"rmia": told, "lira": {**told, "auc": {"value": 0.3, "ci": [0.2, 0.4]}}}
    row = report_content(combine(sources(results)))["headline"][0]
    assert row["leave_one_out"].keys() == {"auc"}
    assert (row["leave_one_out"]["auc"]["attack"], row["leave_one_out"]["auc"]["targets"]) == ("rmia", 34)
    assert row["leave_one_out"]["auc"]["value"] == pytest.approx(0.45)


def test_of_many_settings_each_kind_is_shown_by_the_one_that_leaks_least():
    results = make_results()
    for i in range(PANELS):
        run = make_run("ppb", 0.6, 0.7, 0.3 - 0.01 * i, 0, ("confidence", "lira"), NONMEMBERS)
        results["runs"].append({**run, "label": f"ppb{i}"})
    shown = [arm.label for arm in featured(arms(results))]
    assert shown == ["undefended", "rsw", "rmr", "swmr", f"ppb{PANELS - 1}", "dense"]


def test_the_recommendation_protects_weights_costs_little_and_leaks_least():
    results = make_results(attacks=("lira",))
    (told,) = report_summary(results)["recommendation"]
    assert told.startswith(
        "rsw: among arms that protect the weights and cost at most 2 points of test accuracy (4 here)"
    )
    assert "23.3 % by TPR at 1 % FPR against 54.6 % without a defense" in told
    assert "It still leaks: by chance it would be 2.4 %." in told
    for run in results["runs"]:
        run["altered_answers"] = run["label"] == "rsw"
    assert report_summary(results)["recommendation"][0].startswith("swmr: among arms")
    for run in results["runs"]:
        if run["label"] in ("rsw", "rmr", "swmr"):
            run["accuracy"]["test"] = 0.5
    assert report_summary(results)["recommendation"][0].endswith(
        "no defense leaks less than pruning without one by TPR at 1 % FPR."
    )
    results["runs"] = [run for run in results["runs"] if run["label"] != "undefended"]
    assert report_summary(results)["recommendation"][0].startswith("None: that takes undefended pruning")

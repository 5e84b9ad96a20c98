"""What people read at the end of a run: the tables and the sentences."""

import io
import re
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from rich.console import Console
from scipy.stats import t

from results_example import ARMS, ATTACKS, make_results, make_run
from wemem.metrics.registry import metrics_for
from wemem.reporting.breakable import Name
from wemem.reporting.console import results_table
from wemem.reporting.notes import notes
from wemem.reporting.summary import dense_warning, plain_summary
from wemem.results.arms import arms, over_seeds
from wemem.results.differences import may_leak_least
from wemem.results.schema import results_schema
from wemem.results.wording import duration, interval


def drawn(results: dict[str, Any], width: int = 110) -> str:
    console = Console(file=io.StringIO(), force_terminal=False, width=width)
    console.print(results_table(results))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def row(text: str, start: str) -> str:
    """The last line that starts so, with single spaces."""
    return [" ".join(line.split()) for line in text.splitlines() if line.startswith(start)][-1]


def noisy(results: dict[str, Any], spread: float) -> dict[str, Any]:
    """With runs that differ as trained models do."""
    rng = np.random.default_rng(0)
    for run in results["runs"]:
        run["accuracy"]["test"] += spread * rng.normal()
        for audit in run["attacks"].values():
            audit["balanced_accuracy"] += spread * rng.normal()
            audit["tpr_at_fpr"]["0.01"] += spread * rng.normal()
    return results


def test_one_seed_shows_the_intervals_of_the_run():
    text = drawn(make_results())
    assert row(text, "rsw ") == "rsw 62.5 [61.2-63.8] 66.1 [62.1-70.1] 23.3 [19.3-27.3] 11.7 [7.7-15.7] 12.1"
    assert row(text, "  lira ") == "lira 59.3 [57.3-61.3] 64.3 [62.3-66.3] 25.6 [22.6-28.6] 12.8 [9.8-15.8]"
    assert "one seed" in text


def test_several_seeds_show_mean_and_student_interval():
    text = drawn(make_results((0, 1, 2)))
    # accuracies 62.5, 63.0, 63.5: standard deviation 0.5
    reach = t.ppf(0.975, 2) * 0.5 / np.sqrt(3)
    assert row(text, "rsw ").startswith(f"rsw 63.0 [{63 - reach:.1f}-{63 + reach:.1f}]")
    # chosen among ten: at 99.5 %
    wide = t.ppf(1 - 0.005 / 2, 2) * 0.5 / np.sqrt(3)
    assert f"66.6 [{66.6 - wide:.1f}-{66.6 + wide:.1f}]" in row(text, "rsw ")
    assert "over 3 seeds" in text


def test_strongest_attack_of_several_seeds_is_strongest_on_average():
    results = make_results((0, 1), ("one", "two"))
    for run in results["runs"]:
        one, two = run["attacks"].values()
        one["balanced_accuracy"], two["balanced_accuracy"] = (0.9, 0.7) if run["seed"] == 0 else (0.5, 0.8)
    assert {arm.strongest("balanced_accuracy")[0] for arm in arms(results)} == {"two"}


def test_seeds_that_agree_take_the_intervals_of_their_records():
    results = make_results((0, 1))
    for run in results["runs"]:
        for audit in run["attacks"].values():
            audit["tpr_at_fpr"]["0.001"], audit["tpr_at_fpr_ci"]["0.001"] = 0.0, [0.0, 0.07 + 0.01 * run["seed"]]
    assert row(drawn(results), "  rmia").endswith("0.0 [0.0-8.0]")


def test_strongest_attack_of_seeds_that_agree_is_widened_for_having_been_chosen():
    results = make_results((0, 1))
    for run in results["runs"]:
        for audit in run["attacks"].values():
            audit["tpr_at_fpr"]["0.001"], audit["tpr_at_fpr_ci"]["0.001"] = 0.0, [0.0, 0.07]
        run["worst"]["tpr_at_0.001"] = {"attack": "confidence", "value": 0.0, "ci": [0.0, 0.1 + 0.01 * run["seed"]]}
    for arm in arms(results):
        name, estimate = arm.strongest("tpr_at_0.001")
        assert (name, estimate.value, estimate.low, estimate.high) == ("confidence", 0.0, 0.0, 0.11)
        assert arm.measure(name, "tpr_at_0.001").high == 0.07


def test_strongest_at_a_measure_that_older_results_name_no_strongest_for_has_the_runs_own_ends():
    results = make_results((0, 1), ("lira",))
    for run in results["runs"]:
        run["attacks"]["lira"]["tpr_at_fpr"]["0.1"], run["attacks"]["lira"]["tpr_at_fpr_ci"]["0.1"] = 0.5, [0.4, 0.6]
        assert "tpr_at_0.1" not in run["worst"]
    assert arms(results)[0].strongest("tpr_at_0.1")[1].high == 0.6


def test_teachers_are_told_of_where_there_are_some():
    results = make_results()
    assert "teachers" not in drawn(results)
    results["runs"][2]["seconds"] |= {"teachers": 25.04, "defense_overhead": 21.0}
    text = " ".join(drawn(results).split())
    assert "(-) than without a defense, training of teachers included (25.0 for rsw)" in text
    assert "+21.0" in text


def test_intervals_over_seeds_stay_within_zero_and_one():
    results = make_results((0, 1))
    for run in results["runs"]:
        run["accuracy"]["test"] = 0.01 if run["seed"] else 0.99
    estimate = arms(results)[0].accuracy()
    assert (estimate.value, estimate.low, estimate.high) == (0.5, 0.0, 1.0)


def test_single_estimate_is_returned_as_it_is():
    only = arms(make_results())[0].accuracy()
    assert over_seeds([only]) == only


def test_chance_stands_beside_every_measure():
    text = drawn(make_results())
    assert len(re.findall(r"^chance +50\.0 +50\.0 +1\.0 +0\.1 *$", text, re.MULTILINE)) == 1
    strongest = r"^chance +52\.0 +2\.4 +0\.7 *\n +\[to 54\.0\] +\[to 3\.8\] +\[to 1\.6\] *$"
    assert len(re.findall(strongest, text, re.MULTILINE)) == 1
    for run in (results := make_results())["runs"]:
        for worst in run["worst"].values():
            del worst["chance"], worst["chance_high"]
    assert len(re.findall(r"^chance +50\.0 +1\.0 +0\.1 *$", drawn(results), re.MULTILINE)) == 1


def test_sparsities_of_a_defense_are_rows_of_their_own_from_low_to_high():
    results = make_results()
    denser = [make_run("rsw", 0.63, 0.6, 0.2, 0, ATTACKS, 452), make_run("rsw", 0.61, 0.6, 0.2, 0, ATTACKS, 452)]
    denser[0]["sparsity"], denser[1]["sparsity"] = 0.7, 0.5
    results["runs"] += denser
    titles = [(arm.label, arm.sparsity) for arm in arms(results)]
    assert titles[2:5] == [("rsw", 0.5), ("rsw", 0.6), ("rsw", 0.7)]
    text = drawn(results)
    assert all(f"rsw, {s} % " in text for s in (50, 60, 70))


def test_seconds_show_what_a_defense_costs_or_saves():
    lines = [" ".join(line.split()) for line in drawn(make_results()).splitlines()]
    below = lines[next(i for i, line in enumerate(lines) if line.startswith("rsw 62.5")) + 1]
    assert below == "60 % pruned confidence lira lira -4.0"


@pytest.mark.parametrize(("nonmembers", "note"), [
    (5000, "The smallest FPR they support is 0.02 %."),
    (452, "is 0.221 %: 0.1 % is below that"),
    (50, "is 2 %: 1 % and 0.1 % is below that"),
    (100, "place the threshold at 1 % FPR where 1.98 % of further ones pass on average"),
])  # fmt: skip
def test_rates_below_what_the_sample_supports_are_named(nonmembers: int, note: str):
    text = " ".join(drawn(make_results(nonmembers=nonmembers), 400).split())
    assert f"{nonmembers:,} non-members" in text
    assert note in text


def test_attacks_that_are_not_adaptive_are_marked_wherever_they_stand():
    results = make_results()
    for run in results["runs"]:
        run["attacks"]["lira"]["adaptive"] = False
    text = drawn(results, 200)
    assert text.count("lira (not adaptive)") == 5 + 2 * 5
    assert "attacked one: all are but those marked." in text
    assert "attacked one: all are." in drawn(make_results(), 200)
    assert "not adaptive" in plain_summary(results)[-1]


def test_no_attacks_leave_the_accuracies():
    text = drawn(make_results(attacks=()))
    assert "TPR" not in text
    assert "chance" not in text
    assert "leakage was not measured" in text
    assert row(text, "rsw ") == "rsw 62.5 [61.2-63.8] 12.1"


def test_arm_without_attacks_keeps_its_row_among_others():
    results = make_results()
    results["runs"][0].update(attacks={}, worst={})
    assert row(drawn(results), "dense ") == "dense 60.4 [59.1-61.7] - - - 0.0"


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_tables_keep_to_the_width_and_lose_no_digit(width: int, seeds: tuple[int, ...]):
    results = make_results(seeds)
    results["runs"] += [make_run("label_smoothing", 0.995, 0.99, 0.975, seed, ATTACKS, 452) for seed in seeds]
    text = drawn(results, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert all(f"  {attack} " in text for attack in ATTACKS)
    expected = [
        interval(arm.measure(attack, metric.name))
        for arm in arms(results)
        for attack in ATTACKS
        for metric in metrics_for("table")
    ]
    expected += [interval(arm.strongest(metric.name)[1]) for arm in arms(results) for metric in metrics_for("headline")]
    expected += [interval(arm.accuracy()) for arm in arms(results)]
    found = re.findall(r"\[[0-9.]+-[0-9.]+\]", text)
    assert sorted(found) == sorted(shown.split()[1] for shown in expected)


HOSTILE = "[red]x[/red] [link=file:///etc] :bomb: \x1b[2J\n\u202e"


def test_hostile_names_are_shown_and_not_obeyed():
    results = make_results(attacks=("lira", HOSTILE))
    for run in results["runs"]:
        run["label"] = f"{run['label']} {HOSTILE}"
    text = drawn(results, 300)
    assert all(part in text for part in ("rsw", "[red]x[/red]", "[link=file:", ":bomb:", "\\x1b[2J"))
    for line in [*text.splitlines(), *plain_summary(results)]:
        assert line.isprintable()


def test_names_break_between_their_parts_alone():
    names = ("modified_entropy", "top_confidence", "pruning_trajectory", "dense_and_pruned", "quantile_regression")
    results = make_results(attacks=names)
    for run in results["runs"]:
        run["worst"]["balanced_accuracy"]["attack"] = names[len(run["label"]) % len(names)]
    tables = drawn(results, 80).partition("Values are per cent")[0]
    words = set(re.findall("[a-z]{3,}", tables))
    known = {part for name in (*names, *(arm for arm, *_ in ARMS)) for part in name.split("_")}
    assert known <= words
    assert not [part for part in words - known if any(part in name for name in known)]


def test_name_keeps_numbers_whole_and_folds_only_what_has_no_part():
    assert Name("rsw alpha=0.25 beta=-3").lines(10) == ["rsw", "alpha=0.25", "beta=-3"]
    assert Name("package.module:Class").lines(12) == ["package.", "module:Class"]
    assert Name("a" * 25, indent=2).lines(12) == ["  " + "a" * 10, "  " + "a" * 10, "  " + "a" * 5]
    assert Name("x\n\u202ey").lines(20) == ["x\\n\\u202ey"]


def test_long_names_fold_and_keep_the_width():
    results = make_results(attacks=("lira", "package.module.of.somebody:" + "Attack" * 20))
    results["runs"][1]["label"] = "defense" * 20
    text = drawn(results, 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "54.6" in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0 s"), (59.96, "1 min 00 s"), (3599.7, "1 h 00 min"), (86400, "24 h 00 min")]
)
def test_durations_carry_over(seconds: float, text: str):
    assert duration(seconds) == text


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


@pytest.mark.parametrize(("whole", "warned"), [(0.58, False), (0.2, True)])
def test_sparsity_of_the_whole_model_stands_beside_that_of_the_prunable_weights(whole, warned):
    results = make_results()
    assert not any("Of all parameters" in note for note in notes(results))
    for run in results["runs"]:
        # a classifier and biases of a few per cent of the model, or layers that pruning does not know
        run["whole_model_sparsity"] = 0.0 if run["defense"] == "dense" else whole
    (text,) = (note for note in notes(results) if "Of all parameters" in note)
    assert f"Of all parameters of the model, {100 * whole:.0f} % at 60 % sparsity are gone." in text
    assert ("The two differ much" in text) == warned

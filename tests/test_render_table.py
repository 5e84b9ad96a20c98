"""The tables at the end of a run."""

import re

import numpy as np
import pytest
from scipy.stats import t

from results_example import ARMS, ATTACKS, drawn, make_results, make_run
from wemem.metrics.registry import metrics_for
from wemem.reporting.breakable import Name
from wemem.reporting.notes import notes
from wemem.reporting.summary import plain_summary
from wemem.results.arms import arms, over_seeds
from wemem.results.wording import duration, interval


def row(text: str, start: str) -> str:
    """The last line that starts so, with single spaces."""
    return [" ".join(line.split()) for line in text.splitlines() if line.startswith(start)][-1]


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

"""Defenses against each other: differences of the shared seeds, and no difference where none is shown."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import t, ttest_1samp

from results_example import make_results
from wemem.errors import InputError
from wemem.reporting.comparison import sentences
from wemem.results.comparison import Comparison, against_rivals, leaders, pairwise
from wemem.results.differences import holm


def differing(seeds: int = 3) -> dict[str, Any]:
    """Two arms, one attack; swmr leaks 11, 12, 13 points less than rsw and is 1, 0, -1 points as accurate."""
    results = make_results(tuple(range(seeds)), ("lira",))
    results["runs"] = [run for run in results["runs"] if run["defense"] in ("rsw", "swmr")]
    for run in results["runs"]:
        less = (0.11 + 0.01 * run["seed"]) * (run["defense"] == "swmr")
        run["attacks"]["lira"]["balanced_accuracy"] = 0.7 + 0.05 * run["seed"] - less
        run["attacks"]["lira"]["tpr_at_fpr"]["0.01"] = 0.3 + 0.05 * run["seed"] - 2 * less
        run["attacks"]["lira"]["tpr_at_fpr"]["0.001"] = 0.2 + 0.05 * run["seed"] - less / 2
        run["accuracy"]["test"] = 0.6 + 0.05 * run["seed"] + (0.01 - 0.01 * run["seed"]) * (run["defense"] == "swmr")
    return results


def of(results: dict[str, Any], defense: str, rival: str) -> Comparison:
    (one,) = (c for c in pairwise(results) if (c.defense, c.rival) == (defense, rival))
    return one


def test_difference_of_three_seeds_is_that_of_students_t():
    one = of(differing(), "swmr", "rsw")
    gap = one.leakage["balanced_accuracy"]
    reach = t.ppf(0.975, 2) * 0.01 / np.sqrt(3)  # of -11, -12, -13
    assert gap.interval is not None
    assert gap.value == pytest.approx(-0.12)
    assert (gap.interval.low, gap.interval.high) == pytest.approx((-0.12 - reach, -0.12 + reach))
    (decided,) = against_rivals(differing(), ["swmr"])
    assert "balanced_accuracy" in decided.shown
    assert "accuracy" not in decided.shown


def test_sentence_turns_the_interval_to_its_direction():
    (told,) = sentences(differing(), ["swmr"])
    assert told == (
        "swmr leaks 12.0 points less than rsw by balanced accuracy (95 % interval 9.5 to 14.5), 24.0 points less by "
        "TPR at 1 % FPR (19.0 to 29.0), 6.0 points less by TPR at 0.1 % FPR (4.8 to 7.2), no difference "
        "shown in test accuracy (+0.0 points, -2.5 to 2.5), 60 % sparsity, 3 seeds."
    )
    (back,) = sentences(differing(), ["rsw"])
    assert back.startswith("rsw leaks 12.0 points more than swmr by balanced accuracy (95 % interval 9.5 to 14.5)")


def test_pairs_are_antisymmetric():
    results = differing()
    one, back = of(results, "swmr", "rsw"), of(results, "rsw", "swmr")
    for ours, theirs in ((one.accuracy, back.accuracy), *((one.leakage[m], back.leakage[m]) for m in one.leakage)):
        assert ours.interval is not None
        assert theirs.interval is not None
        assert ours.value == pytest.approx(-theirs.value)
        assert ours.interval.low == pytest.approx(-theirs.interval.high)


def test_intervals_with_zero_are_no_difference_shown():
    results = differing()
    for run in results["runs"]:
        wave = 0.02 * ((run["seed"] % 2) - 0.4) * (run["defense"] == "swmr")
        run["attacks"]["lira"]["balanced_accuracy"] = 0.7 + wave
        run["attacks"]["lira"]["tpr_at_fpr"] |= {"0.01": 0.3 + wave, "0.001": 0.2 + wave}
    (told,) = sentences(results, ["swmr"])
    assert told.startswith("swmr against rsw: no difference shown by balanced accuracy (")
    assert told.count("no difference shown") == 4
    assert "leaks" not in told


def test_one_shared_seed_has_no_interval():
    results = make_results((0,))
    *pairs, warning = sentences(results, ["swmr"])
    # swmr: 67.3 and 25.6 %, rmr: 71.8 and 34.0 %, all with 4 points to either side
    (told,) = (s for s in pairs if "against rmr" in s)
    assert told.startswith(
        "swmr against rmr: no difference shown by balanced accuracy (-4.5 points), 8.4 points less by TPR"
    )
    assert told.endswith(", one shared seed.")
    assert (
        warning == "Of one shared seed there is no interval over seeds: another seed may show otherwise, so run more."
    )
    assert "95 %" not in told


def test_only_shared_seeds_count():
    results = differing()
    results["runs"] = [run for run in results["runs"] if (run["defense"], run["seed"]) != ("rsw", 2)]
    one = of(results, "swmr", "rsw")
    assert one.seeds == (0, 1)
    assert one.leakage["balanced_accuracy"].value == pytest.approx(-0.115)
    results["runs"] = [run for run in results["runs"] if (run["defense"] == "rsw") == (run["seed"] == 0)]
    assert pairwise(results) == []


def test_only_attacks_that_both_have_count():
    results = differing()
    for run in results["runs"]:
        if run["defense"] == "swmr":
            run["attacks"]["mine"] = {**run["attacks"]["lira"], "balanced_accuracy": 1.0}
    assert of(results, "swmr", "rsw").leakage["balanced_accuracy"].value == pytest.approx(-0.12)
    for run in results["runs"]:
        if run["defense"] == "swmr":
            del run["attacks"]["lira"]
    assert "no attack was run on both" in sentences(results, ["swmr"])[0]


def test_an_attack_helped_by_more_models_against_one_arm_does_not_count():
    results = differing()
    for run in results["runs"]:
        few = run["defense"] == "swmr"
        by_few = {"reference_models": 16 if few else 64, "balanced_accuracy": 0.5 if few else 1.0}
        run["attacks"] = {"equal": run["attacks"]["lira"], "lira": {**run["attacks"]["lira"], **by_few}}
    assert of(results, "swmr", "rsw").leakage["balanced_accuracy"].value == pytest.approx(-0.12)
    for run in results["runs"]:
        run["attacks"] = {"lira": run["attacks"]["lira"]}
    assert of(results, "swmr", "rsw").leakage == {}


def test_only_equal_sparsities_are_compared():
    assert not any("dense" in (one.defense, one.rival) for one in pairwise(make_results()))
    assert len(pairwise(make_results())) == 4 * 3


def test_seeds_that_all_differ_by_the_same_are_no_certainty():
    assert "which is no certainty" in sentences(make_results((0, 1)), ["swmr"])[0]


def test_pair_of_two_that_are_asked_for_is_told_once():
    assert len(sentences(differing(), ["swmr", "rsw", "swmr"])) == 1


def test_unknown_label_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="did you mean 'swmr'"):
        sentences(make_results(), ["smwr"])


def test_the_leaders_are_those_that_leak_least_by_either_headline_and_never_the_dense_model():
    results = differing()
    assert leaders(results) == ["swmr"]
    for run in results["runs"]:
        run["attacks"]["lira"]["tpr_at_fpr"]["0.01"] = 0.1 if run["defense"] == "rsw" else 0.3
    assert leaders(results) == ["swmr", "rsw"]
    for run in results["runs"]:
        run["defense"] = "dense" if run["defense"] == "swmr" else run["defense"]
    assert leaders(results) == ["rsw"]


def test_many_equal_pairs_show_a_difference_as_seldom_as_one_pair():
    """Six equal arms, fifteen pairs; without Holm's rule two studies in five would show some difference."""
    rng, shown, alone = np.random.default_rng(0), 0, 0
    for _ in range(200):
        gaps = rng.normal(size=(15, 5)) / 100
        p_values = [float(ttest_1samp(gap, 0).pvalue) for gap in gaps]
        shown += any(holm(p_values))
        alone += any(p < 0.05 for p in p_values)
    assert shown / 200 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)
    assert alone / 200 > 0.3

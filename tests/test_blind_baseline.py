"""The blind baseline: records alone tell members from non-members only where the split leaks."""

import io
from pathlib import Path

import numpy as np
from jsonschema import Draft202012Validator
from rich.console import Console
from scipy.special import ndtr

from bound_results import bound_folder, edit
from results_example import make_results
from wemem.auditing.blind import FEWEST_RECORDS, MOST_COLUMNS, blind_baseline, blind_scores
from wemem.data.dataset import Dataset
from wemem.data.split import Role, Split
from wemem.metrics.rates import auc
from wemem.notes import shown
from wemem.reporting.console import results_table
from wemem.reporting.content import blind_row
from wemem.results.blind import blind_estimate, leaking_splits
from wemem.results.build import leaking
from wemem.results.combine import Source, combine
from wemem.results.contradictions import contradictions
from wemem.results.gate import Limits, check_folder
from wemem.results.schema import results_schema


def sides(n: int, columns: int, shift: float, seed: int = 0) -> tuple[Dataset, Split]:
    """Normal features, the first shifted for members; ``n`` members, ``n`` others, a dev record a class."""
    rng = np.random.default_rng(seed)
    roles = np.repeat([Role.TRAIN, Role.AUDIT, Role.DEV], [n, n, 3]).astype(np.int8)
    x = rng.normal(size=(len(roles), columns)).astype(np.float32)
    x[:n, 0] += shift
    y = np.arange(len(roles)) % 3
    roles = roles[None]
    return Dataset.from_arrays("sides", x, y), Split(roles, y, "subsets")


def with_baseline(auc_value: float, above: bool):
    entry = {
        "seed": 0, "members": 100, "nonmembers": 100, "above_chance": above,
        **{name: {"value": v, "ci": [v - 0.01, v + 0.01]} for name, v in
           (("auc", auc_value), ("tpr_at_0.1", 0.1), ("tpr_at_0.01", 0.02), ("tpr_at_0.001", 0.02))},
    }  # fmt: skip
    return {**make_results(), "blind_baseline": [entry]}


def test_too_few_records_have_no_baseline():
    assert blind_baseline(*sides(FEWEST_RECORDS - 1, 3, 0.0), 0) is None


def test_the_auc_of_a_shift_is_at_most_that_of_the_best_test_and_near_it():
    entry = blind_baseline(*sides(2000, 4, 1.0), 0)
    best = ndtr(1 / np.sqrt(2))  # of two normal distributions one deviation apart: 0.760
    assert entry is not None
    assert entry["above_chance"]
    assert best - 0.06 < entry["auc"]["value"] < best + 0.03
    assert entry["members"] == entry["nonmembers"] == 1000


def test_alike_sides_are_at_chance():
    entries = [blind_baseline(*sides(60, 6, 0.0, seed), seed) for seed in range(30)]
    values = [entry["auc"]["value"] for entry in entries if entry]
    # of 30 members and 30 non-members the AUC has a deviation of 0.075
    assert abs(np.mean(values) - 0.5) < 4 * 0.075 / np.sqrt(30)
    assert not any(entry and entry["above_chance"] for entry in entries)


def test_a_leak_in_one_class_is_found_through_the_label():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 1000)
    member = rng.random(1000) < np.where(labels == 1, 0.8, 0.2)
    fitted = np.arange(1000) < 500
    score = blind_scores(np.zeros((1000, 2), np.float32), labels, member, fitted)
    assert auc(score[member[~fitted]], score[~member[~fitted]]) > 0.75


def test_the_true_side_of_scored_records_is_not_read():
    rng = np.random.default_rng(0)
    member, fitted = rng.random(200) < 0.5, np.arange(200) < 100
    x = rng.normal(size=(200, 3)).astype(np.float32) + member[:, None]
    scores = [blind_scores(x, np.zeros(200, np.int64), own, fitted) for own in (member, member & fitted)]
    np.testing.assert_array_equal(scores[0], scores[1])


def test_many_columns_with_missing_values_are_scored():
    rng = np.random.default_rng(0)
    member, fitted = rng.random(600) < 0.5, np.arange(600) < 300
    x = rng.normal(size=(600, MOST_COLUMNS + 40)).astype(np.float32) + 2 * member[:, None]
    x[0, 5] = np.nan
    score, inside = blind_scores(x, np.zeros(600, np.int64), member, fitted), member[300:]
    assert np.isfinite(score).all()
    assert auc(score[inside], score[~inside]) > 0.95


def test_the_same_seed_gives_the_same_entry():
    data, split = sides(80, 3, 0.5)
    assert blind_baseline(data, split, 1) == blind_baseline(data, split, 1) != blind_baseline(data, split, 2)


def test_large_records_are_fewer(monkeypatch):
    monkeypatch.setattr("wemem.auditing.blind.MOST_FEATURES", 2 * 3 * 40)
    entry = blind_baseline(*sides(100, 3, 1.0), 0)
    assert entry is not None
    assert entry["members"] == entry["nonmembers"] == 20


def test_results_have_a_row_that_is_never_the_strongest():
    results = with_baseline(0.99, True)
    Draft202012Validator(results_schema()).validate(results)
    assert not list(contradictions(results))
    console = Console(file=io.StringIO(), width=110)
    console.print(results_table(results))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    row = next(" ".join(line.split()) for line in text.splitlines() if line.startswith("blind"))
    assert row == "blind, no model - 99.0 [98.0-100.0] 2.0 [1.0-3.0] 2.0 [1.0-3.0]"
    assert "blind" not in text.split("Accuracy and the strongest attack")[1]
    assert blind_row(results)["auc"] == {"value": 0.99, "low": 0.98, "high": 1.0}


def test_results_without_the_baseline_have_no_row():
    assert blind_estimate(make_results(), "auc") is None
    assert blind_row(make_results()) == {}


def test_a_leaking_split_leaves_a_note():
    entries = with_baseline(0.62, True)["blind_baseline"]
    (note,) = leaking(entries)
    assert "AUC 62.0% [61.0%-63.0%]" in shown(note.as_json())
    assert leaking([{**entries[0], "above_chance": False}]) == []
    assert leaking_splits({"blind_baseline": entries}) == entries


def test_a_baseline_above_chance_contradicts_an_interval_that_is_not():
    assert any("above chance" in one for one in contradictions(with_baseline(0.5, True)))


def test_combined_folders_keep_each_baseline_once():
    both = combine([Source(name, with_baseline(0.5, False), [None] * 5) for name in ("one", "two")])
    assert len(both.results["blind_baseline"]) == 1


def test_the_gate_fails_on_a_leaking_split_unless_it_is_waived(tmp_path: Path):
    folder, limits = bound_folder(tmp_path), Limits(max_tpr=0.9)
    for above, reasons in ((False, []), (True, ["split-leaks"])):
        baseline = with_baseline(0.62, above)["blind_baseline"]
        edit(folder, lambda results, own=baseline: results.update(blind_baseline=own))
        assert [one.name for one in check_folder(folder, limits).reservations] == reasons
    assert not check_folder(folder, limits).passed
    assert check_folder(folder, limits, waivers=["split-leaks"]).passed

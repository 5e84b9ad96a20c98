"""The numbers of a report, each recomputed from the stored scores by another road."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from report_example import MEMBERS, NONMEMBERS, make_folder, write
from results_example import make_results, make_run, sources
from wemem.errors import InputError
from wemem.metrics.intervals import tpr_at_fpr
from wemem.reporting.content import provenance
from wemem.reporting.figure_groups import draw_times
from wemem.reporting.figure_style import marks
from wemem.reporting.report import report_content
from wemem.results import per_record as stored
from wemem.results.arms import arms
from wemem.results.combine import Combined, combine, read_sources
from wemem.results.curves import at_rate, by_class, by_decile, front, roc_points
from wemem.results.per_record import RunScores, read_scores

Row = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("numbers") / "out"
    make_folder(path)
    return path


@pytest.fixture(scope="module")
def combined(folder: Path) -> Combined:
    return read_sources([folder])


def rows_of(folder: Path, label: str, seed: int) -> list[Row]:
    """The stored rows of one run, as an auditor would filter them."""
    return [
        r for r in pq.read_table(folder / "per_sample.parquet").to_pylist() if (r["label"], r["seed"]) == (label, seed)
    ]


def found(rows: list[Row], attack: str, false_positives: int) -> list[Row]:
    """The members above the first non-member that may not be accused."""
    others = sorted((r[attack] for r in rows if not r["member"]), reverse=True)
    return [r for r in rows if r["member"] and r[attack] > others[false_positives]]


def test_curves_are_what_counting_gives(folder, combined):
    content = report_content(combined)
    for curve in content["roc"]:
        for point in curve["points"]:
            k = point["false_positives"]
            assert point["fpr"] == k / NONMEMBERS
            shares = [len(found(rows_of(folder, curve["label"], s), curve["attack"], k)) / MEMBERS for s in (0, 1)]
            assert point["by_seed"] == pytest.approx(shares)
            assert point["tpr"]["value"] == pytest.approx(sum(shares) / 2)
            assert point["tpr"]["low"] <= point["tpr"]["value"] <= point["tpr"]["high"]
        assert curve["points"][0]["fpr"] == 1 / NONMEMBERS
        assert at_rate(curve["points"], 0.01) == next(p for p in curve["points"] if p["false_positives"] == 2)
        assert at_rate(curve["points"], 0.001) is None


def test_the_band_of_one_seed_is_the_interval_that_knows_its_threshold(combined):
    run = combined.of(arms(combined.results)[1], "lira")[:1]
    for point in roc_points(run, "lira"):
        assert point.tpr == tpr_at_fpr(run[0].members("lira"), run[0].nonmembers("lira"), point.fpr)


def test_tenths_are_of_members_in_order_of_memorization(folder, combined):
    content = report_content(combined)
    assert len(content["deciles"]) == 3
    for arm in content["deciles"]:
        hits, sizes = np.zeros(10, int), np.zeros(10, int)
        for seed in (0, 1):
            rows = rows_of(folder, arm["label"], seed)
            members = sorted((r for r in rows if r["member"]), key=lambda r: r["memorization"])  # stable, as stored
            caught = {r["record"] for r in found(rows, arm["attack"], 2)}
            for place, row in enumerate(members):
                sizes[10 * place // MEMBERS] += 1
                hits[10 * place // MEMBERS] += row["record"] in caught
        assert [g["members"] for g in arm["groups"]] == sizes.tolist()
        assert [g["tpr"]["value"] for g in arm["groups"]] == pytest.approx((hits / sizes).tolist())
        last = arm["groups"][-1]["tpr"]
        assert last["low"] == pytest.approx(beta.ppf(0.025, hits[-1], sizes[-1] - hits[-1] + 1))


def test_classes_are_judged_at_the_threshold_of_all(folder, combined):
    for arm in report_content(combined)["classes"]:
        for group in arm["groups"]:
            hits, members, areas = 0, 0, []
            for seed in (0, 1):
                rows = rows_of(folder, arm["label"], seed)
                mine = [r for r in rows if r["class"] == group["group"]]
                hits += sum(r["class"] == group["group"] for r in found(rows, arm["attack"], 2))
                x, y = ([r[arm["attack"]] for r in mine if r["member"] is truth] for truth in (True, False))
                members += len(x)
                areas.append(np.mean([(a > b) + (a == b) / 2 for a in x for b in y]))
            assert (group["members"], group["tpr"]["value"]) == (members, pytest.approx(hits / members))
            assert group["auc"]["value"] == pytest.approx(np.mean(areas))


def test_members_without_a_score_are_in_no_tenth():
    run = RunScores(
        np.arange(40) < 20, np.zeros(40, np.int64), np.r_[np.full(5, np.nan), np.arange(35.0)], {"a": np.arange(40.0)}
    )
    assert sum(group.members for group in by_decile([run], "a")) == 15
    few = RunScores(run.member, run.classes, np.where(np.arange(40) < 9, 1.0, np.nan), run.scores)
    assert by_decile([few], "a") == by_decile([RunScores(run.member, run.classes, None, run.scores)], "a") == []


def test_a_class_that_one_run_lacks_is_left_out():
    member = np.arange(8) < 4
    one = RunScores(member, np.array([0, 0, 1, 1] * 2), None, {"a": np.arange(8.0)})
    other = RunScores(member, np.array([0, 0, 0, 0] * 2), None, {"a": np.arange(8.0)})
    assert [group.group for group in by_class([one, other], "a")] == [0]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_the_front_is_what_nothing_beats(points):
    kept = front([a for a, _ in points], [b for _, b in points])
    for i, (a, b) in enumerate(points):
        beaten = any((x >= a and y < b) or (x > a and y <= b) for x, y in points)
        assert (i in kept) != beaten
    assert [points[i] for i in kept] == sorted(points[i] for i in kept)


def test_planes_draw_fronts_of_kinds_and_of_all(combined):
    for panel in report_content(combined)["plane"]:
        by_label = {point["label"]: point for point in panel["points"]}
        assert by_label["rsw"]["front"]  # more accurate and leaks less than undefended
        assert not by_label["undefended"]["front"]
        assert by_label["undefended"]["front_of_kind"]
        assert not by_label["dense"]["front"]  # it is not pruned


def test_runs_of_several_sparsities_are_matched_from_low_to_high(tmp_path):
    results = make_results((0,), ("confidence",), NONMEMBERS)
    results["runs"] = [make_run("rsw", 0.6, 0.7, 0.2, 0, ("confidence",), NONMEMBERS) for _ in range(2)]
    for run, reached in zip(results["runs"], (0.699, 0.501), strict=True):
        run["sparsity"] = reached
        run["attacks"]["confidence"]["members"] = MEMBERS
    write(tmp_path, results)
    high, low = read_scores(tmp_path, results["runs"])
    rows = pq.read_table(tmp_path / "per_sample.parquet").to_pylist()
    assert low is not None
    assert high is not None
    assert low.scores["confidence"].tolist() == [r["confidence"] for r in rows if r["sparsity"] == 0.5]
    assert high.scores["confidence"].tolist() == [r["confidence"] for r in rows if r["sparsity"] == 0.7]


@pytest.mark.parametrize("wrong", ["another label", "a record less", "NaN", "no table", "text", "no classes"])
def test_scores_of_other_results_are_refused(wrong, tmp_path):
    results = make_folder(tmp_path, seeds=(0,))
    table = pq.read_table(tmp_path / "per_sample.parquet")
    if wrong == "another label":
        table = table.set_column(0, "label", pa.array(["x"] * len(table)))
    elif wrong == "a record less":
        table = table.slice(1)
    elif wrong == "NaN":
        table = table.set_column(table.column_names.index("lira"), "lira", pa.array([float("nan")] * len(table)))
    elif wrong == "no classes":
        table = table.drop_columns(["class"])
    elif wrong == "text":
        table = table.set_column(table.column_names.index("lira"), "lira", pa.array(["x"] * len(table)))
    if wrong == "no table":
        (tmp_path / "per_sample.parquet").write_bytes(b"PAR1")
    else:
        pq.write_table(table, tmp_path / "per_sample.parquet")
    with pytest.raises(InputError, match="run the study again"):
        read_scores(tmp_path, results["runs"])


def test_a_table_that_would_not_fit_is_refused_before_it_is_read(tmp_path, monkeypatch):
    results = make_folder(tmp_path, seeds=(0,))
    monkeypatch.setattr(stored, "MOST", 1000)
    with pytest.raises(InputError, match="at most 1,000 numbers"):
        read_scores(tmp_path, results["runs"])


def test_without_scores_there_are_no_curves_and_the_report_says_so(tmp_path):
    make_folder(tmp_path, seeds=(0,))
    (tmp_path / "per_sample.parquet").unlink()
    content = report_content(read_sources([tmp_path]))
    assert content["roc"] == content["classes"] == content["deciles"] == []
    assert any("No scores of single records" in line for line in content["not_measured"])


def test_what_two_studies_share_is_shown_once():
    first, second = make_results(), make_results()
    second["runs"] = second["runs"][:2]
    second["runs"][0]["seconds"]["finetune"] = 99.0
    assert combine(sources(first, second)).results["runs"] == first["runs"]


def test_seeds_of_one_study_in_two_folders_are_seeds_of_one_arm():
    together = combine(sources(make_results((0,)), make_results((1,)))).results
    assert [len(arm.runs) for arm in arms(together)] == [2] * 5


def with_budget(seed: int, kind: str, width: float) -> dict[str, Any]:
    """Results of one seed whose third arm is a budget, and what was found for it."""
    results = make_results((seed,))
    auto = {"mode": "search", "budget": {"max_accuracy_drop": 0.01}, "seconds": 10.0 * seed}
    results["runs"][2] |= {"label": "auto", "defense": kind, "settings": {"width": width}, "auto": auto}
    return results


def test_a_budget_is_one_arm_whatever_its_seeds_found():
    together = combine(sources(with_budget(0, "rsw", 0.2), with_budget(1, "rmr", 0.3)))
    arm = next(arm for arm in arms(together.results) if arm.label == "auto")
    assert (arm.defense, len(arm.runs)) == ("auto", 2)
    settings = next(one for one in provenance(together, [arm])["arms"])["settings"]
    assert settings == {"seed 0": "rsw {'width': 0.2}", "seed 1": "rmr {'width': 0.3}"}


def test_a_budget_that_two_folders_share_is_shown_once_though_the_searches_took_other_times():
    first, second = with_budget(1, "rsw", 0.2), with_budget(1, "rsw", 0.2)
    second["runs"][2]["auto"]["seconds"] = 99.0
    assert combine(sources(first, second)).results["runs"] == first["runs"]


@pytest.mark.parametrize("differ", ["settings", "recipe", "numbers"])
def test_labels_that_stand_for_different_things_are_told_apart(differ):
    first, second = make_results(), make_results((1,) if differ == "recipe" else (0,))
    if differ == "settings":
        second["runs"][2]["settings"] = {"width": 0.5}
        second["runs"][2]["accuracy"]["test"] = 0.1
    elif differ == "recipe":
        second["study"]["pruning"] = {"rounds": 9}
    else:
        second["runs"][2]["accuracy"]["test"] = 0.1
    labels = {run["label"] for run in combine(sources(first, second)).results["runs"]}
    assert {"rsw (folder0)", "rsw (folder1)"} <= labels
    assert ("dense" in labels) == (differ != "recipe")


def test_studies_of_different_data_are_refused(folder, tmp_path):
    results = make_results()
    results["data"] |= {"name": "other", "fingerprint": "f" * 64}
    (tmp_path / "results.json").write_text(json.dumps(results))
    with pytest.raises(InputError, match="expected studies of one data set, got 'location' in out and 'other'"):
        read_sources([folder, tmp_path])
    with pytest.raises(InputError, match="got one twice"):
        read_sources([folder, folder])
    with pytest.raises(InputError, match="got none"):
        read_sources([])


def test_every_number_is_plain_json(combined):
    text = json.dumps(report_content(combined), allow_nan=False)
    assert json.loads(text)["schema"] == "wemem.report/2"
    run = combined.of(arms(combined.results)[0], "lira")[0]
    assert asdict(roc_points([run], "lira")[0])["false_positives"] == 1


def test_the_longest_bar_keeps_its_label_within_the_picture():
    def lasting(seconds: float) -> dict[str, Any]:
        return {"mean": seconds, "least": 0.5 * seconds, "most": 1.5 * seconds}

    drawn: list[Row] = [
        {
            "label": label,
            "defense": label,
            "finetune_seconds": lasting(seconds),
            "defense_overhead_seconds": lasting(9e5),
        }
        for label, seconds in (("undefended", 4.0), ("oosd", 123_456.7), ("rsw", 80_000.0))
    ]
    figure = draw_times(drawn, marks([arm["label"] for arm in drawn]))
    figure.draw_without_rendering()
    right = figure.axes[0].get_window_extent().x1
    ends = [text.get_window_extent().x1 for text in figure.axes[0].texts]
    assert max(ends) <= right
    assert max(ends) > 0.95 * right  # and no room is wasted

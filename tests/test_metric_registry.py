"""One entry of the registry is all that another metric takes."""

import csv
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from rich.console import Console

from results_example import make_results
from wemem.auditing.leave_one_out import TargetRecords, leave_one_out
from wemem.auditing.report import as_json, run_attacks
from wemem.config.attack_entries import make_attacks
from wemem.errors import InputError
from wemem.metrics.over_targets import reference_accuracy
from wemem.metrics.rates import true_positive_rate
from wemem.metrics.registry import METRICS, ScoredRecords, metrics_for, tpr_metric
from wemem.reporting.console import results_table
from wemem.reporting.csv_tables import write_runs_csv
from wemem.reporting.summary import report_summary
from wemem.results.gate import Limits, check
from wemem.results.schema import results_schema
from wemem.signals import SignalLayout, Signals
from wemem.testing import planted

FIVE = tpr_metric(0.05, "headline")


@pytest.fixture
def five(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, FIVE.name, FIVE)


def with_five() -> dict[str, Any]:
    """Results as an audit writes them once the rate is registered."""
    results = make_results()
    for run in results["runs"]:
        for attack in run["attacks"].values():
            attack["tpr_at_fpr"]["0.05"], attack["tpr_at_fpr_ci"]["0.05"] = 0.125, [0.1, 0.15]
        run["worst"][FIVE.name] = {"attack": "lira", "value": 0.125, "ci": [0.09, 0.16]}
    return results


def test_another_rate_is_measured_with_its_interval_and_its_strongest_attack(five):
    signals: dict[SignalLayout, Signals] = {
        "disjoint": planted.disjoint(2.0, records=300, shadows=2),
        "shared": planted.shared(2.0, pool=100),
    }
    report = run_attacks(signals, make_attacks(("confidence", "lira")))
    audited: dict[str, Any] = as_json(report)
    for result in report.results:
        records = result.scored
        value = true_positive_rate(records.members, records.nonmembers, 0.05)
        assert audited["attacks"][result.name]["tpr_at_fpr"]["0.05"] == value
        low, high = audited["attacks"][result.name]["tpr_at_fpr_ci"]["0.05"]
        assert low <= value <= high
    assert audited["worst"][FIVE.name]["value"] == max(
        attack["tpr_at_fpr"]["0.05"] for attack in audited["attacks"].values()
    )
    results = make_results(attacks=())
    results["runs"] = [{**results["runs"][0], **audited}]
    Draft202012Validator(results_schema()).validate(results)


def test_another_rate_is_in_table_summary_csv_and_gate(five, tmp_path):
    results = with_five()
    console = Console(width=160, record=True)
    console.print(results_table(results))
    text = console.export_text()
    assert text.count("TPR at 5 % FPR") == 2
    assert "12.5 [10.0-15.0]" in text
    assert any(line.startswith("By TPR at 5 % FPR, ") for line in report_summary(results)["protects"])
    write_runs_csv(results, tmp_path / "runs.csv")
    with (tmp_path / "runs.csv").open(newline="") as file:
        assert {row["tpr_at_0.05_high"] for row in csv.DictReader(file)} == {"0.15"}
    (one,) = check(results, Limits(max_tpr=0.15, at_fpr=0.05), ["rsw"])
    assert (one.measure, one.estimate.high, one.passed) == ("TPR at 5 % FPR", 0.16, False)


def test_results_without_a_metric_that_came_later_are_still_shown(five):
    console = Console(width=160, record=True)
    console.print(results_table(make_results()))
    text = console.export_text()
    assert "5 % FPR" not in text
    assert "TPR at 1 % FPR" in text
    with pytest.raises(InputError, match="at-fpr"):
        Limits(max_tpr=0.5, at_fpr=0.07)


def test_targets_in_turn_are_measured_by_every_metric_that_needs_no_threshold(five):
    targets = leave_one_out(planted.shared(2.0, pool=100), make_attacks(("lira",)), seed=0)["lira"]
    value = np.mean(
        [
            true_positive_rate(score[member], score[~member], 0.05)
            for score, member in zip(targets.scores, targets.membership, strict=True)
        ]
    )
    assert targets.measure(FIVE).value == pytest.approx(value)
    with pytest.raises(InputError, match="needs no threshold"):
        targets.measure(METRICS["balanced_accuracy"])


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_value_is_that_of_the_interval_and_is_read_as_it_was_written(metric):
    rng = np.random.default_rng(0)
    member = rng.random(400) < 0.5
    score = rng.normal(size=400) + member
    records = ScoredRecords(score, member, score > 0.5)
    estimate = metric.interval(records, 0.95)
    assert metric.value(records) == pytest.approx(estimate.value, abs=1e-12)
    audited: dict[str, Any] = {}
    metric.write(audited, estimate)
    assert metric.read(audited) == estimate
    assert metric.read({}) is None


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_score_independent_of_membership_reaches_chance_on_average(metric):
    rng = np.random.default_rng(1)
    values = []
    for _ in range(400):
        member = np.arange(2000) < 1000
        score = rng.normal(size=2000)
        values.append(metric.value(ScoredRecords(score, member, score > 0)))
    assert np.mean(values) == pytest.approx(metric.chance, abs=4 * np.std(values) / 20 + 1 / 1000)


def test_places_are_nested():
    headline, table, file = (metrics_for(place) for place in ("headline", "table", "file"))
    assert set(headline) < set(table) < set(file)
    assert file == list(METRICS.values())


def test_targets_leave_what_arms_are_compared_by():
    signals = planted.shared(2.0, pool=200, models=6)
    targets = leave_one_out(signals, make_attacks(("lira",)), seed=0)["lira"]
    mean = targets.measure(METRICS["tpr_at_0.01"])
    stored = mean.as_comparable_json()
    assert np.mean(np.array(stored["pseudo_values"])) == pytest.approx(mean.value, abs=1e-5)
    records = TargetRecords.of(signals, {})
    accuracy = reference_accuracy(records.correct, records.membership, seed=0)
    rows = signals.audited(0)
    right = signals.logits[:, rows].argmax(axis=-1) == signals.labels[rows]
    each = [right[k][~signals.is_member(k)].mean() for k in range(signals.num_models)]
    assert accuracy.value == pytest.approx(np.mean(each))
    assert (accuracy.targets, accuracy.table.shape) == (7, (7, 10))
    assert accuracy.estimate.low < accuracy.value < accuracy.estimate.high

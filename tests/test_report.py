"""An audit's report: every number beside an oracle of its own."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from wemem.attacks.base import Attack, AttackOutput
from wemem.auditing.report import AttackResult, AuditReport, as_json, run_attacks
from wemem.config.attack_entries import make_attacks
from wemem.errors import InputError
from wemem.metrics.intervals import corrected_level
from wemem.metrics.registry import METRICS, fprs, tpr_metric
from wemem.signals import SignalLayout, Signals
from wemem.testing import planted

NAMES = ("confidence", "entropy", "top_confidence", "lira", "rmia")


@pytest.fixture(scope="module")
def signals() -> Mapping[SignalLayout, Signals]:
    return {"disjoint": planted.disjoint(2.0, records=600, shadows=3), "shared": planted.shared(2.0, pool=200)}


@pytest.fixture(scope="module")
def report(signals: Mapping[SignalLayout, Signals]) -> AuditReport:
    return run_attacks(signals, make_attacks(NAMES))


@dataclass(frozen=True)
class Fixed(Attack):
    """Scores that are given."""

    values: tuple[float, ...] = ()
    name: ClassVar[str] = "fixed"
    layout = "disjoint"

    def score(self, signals: Signals, target: int, *, seed: int) -> np.ndarray:
        return np.resize(np.array(self.values), len(signals.audited(target)))


def result(members: list[float], others: list[float], threshold: float = 0.5) -> AttackResult:
    score = np.array([*members, *others])
    member = np.arange(len(score)) < len(members)
    output = AttackOutput(score, np.full(len(score), threshold))
    return AttackResult("made up", True, 1, output, member, np.arange(len(score)))


def test_perfect_attack_has_one_everywhere_and_its_mirror_zero():
    best, worst = result([0.9] * 50, [0.1] * 50), result([0.1] * 50, [0.9] * 50)
    for metric in METRICS.values():
        assert best.measure(metric).value == 1
        assert worst.measure(metric).value == 0


def test_constant_score_is_chance():
    told = result([1.0] * 20, [1.0] * 30)
    assert told.measure(METRICS["auc"]).value == 0.5
    assert told.measure(METRICS["balanced_accuracy"]).value == 0.5
    assert told.measure(tpr_metric(0.01)).value == 0


def test_every_number_is_that_of_an_oracle(report, signals):
    told = json.loads(json.dumps(as_json(report), allow_nan=False))["attacks"]
    for r in report.results:
        score, member = r.output.score, r.member
        own = told[r.name]
        assert own["auc"] == pytest.approx(roc_auc_score(member, score), abs=1e-12)
        calls = score >= r.output.threshold
        assert own["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(member, calls), abs=1e-12)
        for fpr in fprs():
            reached = [
                (score[member] >= t).mean() for t in [*score, np.inf] if (score[~member] >= t).mean() <= fpr + 1e-12
            ]
            assert own["tpr_at_fpr"][str(fpr)] == pytest.approx(max(reached), abs=1e-12)
        assert (own["members"], own["nonmembers"]) == (member.sum(), (~member).sum())
        assert own["smallest_fpr"] == pytest.approx(1 / (~member).sum())
        for name in ("auc", "balanced_accuracy"):
            assert own[f"{name}_ci"][0] <= own[name] <= own[f"{name}_ci"][1]


def test_truth_and_records_are_those_of_the_signals(report, signals):
    for r in report.results:
        seen = signals["shared" if r.name in ("lira", "rmia") else "disjoint"]
        assert np.array_equal(r.records, seen.records[seen.audited(0)])
        assert np.array_equal(r.member, seen.is_member(0))
        assert r.reference_models == seen.num_models - 1
        assert r.adaptive


def test_threshold_of_a_verdict_does_not_depend_on_the_targets_truth(signals):
    seen = signals["disjoint"]
    roles = seen.roles.copy()
    audited = seen.audited(0)
    roles[0, audited] = roles[0, audited[::-1]]
    attack = make_attacks("confidence")["confidence"]
    first, second = attack.predict(seen), attack.predict(replace(seen, roles=roles))
    assert np.array_equal(first.threshold, second.threshold)
    assert np.array_equal(first.score, second.score)


def test_worst_is_the_strongest_with_an_interval_for_having_been_chosen(report):
    told = as_json(report)["worst"]
    assert isinstance(told, dict)
    assert set(told) == set(METRICS)
    for metric in METRICS.values():
        strongest = max(report.results, key=lambda r: r.measure(metric).value)
        wide = strongest.measure(metric, corrected_level(0.95, len(NAMES)))
        narrow = strongest.measure(metric)
        expected = {"attack": strongest.name, "value": narrow.value, "ci": [wide.low, wide.high]}
        assert {name: told[metric.name][name] for name in expected} == expected
        assert 0 < told[metric.name]["chance"] <= told[metric.name]["chance_high"]
        assert wide.high - wide.low >= narrow.high - narrow.low


def test_report_is_read_by_the_attacks_name(report):
    assert report["lira"].name == "lira"


def test_no_attack_gives_an_empty_report():
    assert as_json(AuditReport(())) == {"attacks": {}, "worst": {}}


def test_unlike_models_make_no_adaptive_attack(signals):
    seen = replace(signals["disjoint"], provenance=("a", "b", "b", "b"))
    assert not run_attacks({"disjoint": seen}, make_attacks("confidence"))["confidence"].adaptive


def test_missing_layout_is_refused(signals):
    with pytest.raises(InputError, match=r"needs shared signals, got .'disjoint'"):
        run_attacks({"disjoint": signals["disjoint"]}, make_attacks("lira"))


def test_scores_that_are_not_numbers_or_too_few_are_refused(signals):
    class Short(Fixed):
        def predict(self, signals: Signals, target: int = 0, *, seed: int = 0) -> AttackOutput:
            return AttackOutput(np.zeros(3), np.zeros(3))

    class Broken(Fixed):
        def predict(self, signals: Signals, target: int = 0, *, seed: int = 0) -> AttackOutput:
            score = np.full(len(signals.audited(target)), np.nan)
            return AttackOutput(score, score)

    for attack in (Short(), Broken()):
        with pytest.raises(InputError, match="scores without NaN from attack 'fixed'"):
            run_attacks(signals, {"fixed": attack})

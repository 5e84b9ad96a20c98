"""A target is not among its own references, so the references of a member and of a non-member differ
by one model (Jälkö et al., arXiv:2605.25819). Figures of one record over all targets are biased by
that; these tests bound what is left of it in the figures that are reported.
"""

from functools import cache

import numpy as np
import pytest

from wemem.attacks import make_attack
from wemem.auditing.leave_one_out import leave_one_out
from wemem.data.split import Role
from wemem.metrics.over_targets import TargetsResult
from wemem.metrics.rates import auc
from wemem.signals import Signals

MODELS, RECORDS, REPEATS = 16, 8, 30


def attack_models_without_leak(seed: int) -> TargetsResult:
    """Attack models in complementary pairs, whose logits do not depend on membership."""
    rng = np.random.default_rng(seed)
    inside = rng.random((MODELS // 2, RECORDS)) < 0.5
    member = np.stack([inside, ~inside], axis=1).reshape(MODELS, RECORDS)
    logits = np.stack([rng.normal(size=(MODELS, RECORDS)), np.zeros((MODELS, RECORDS))], axis=-1).astype(np.float32)
    roles = np.where(member, Role.TRAIN, Role.AUDIT).astype(np.int8)
    signals = Signals(
        logits, np.zeros(RECORDS, np.int64), roles, np.arange(RECORDS), "shared", ("without leak",) * MODELS
    )
    return leave_one_out(signals, {"lira": make_attack("lira")}, seed=seed)["lira"]


@cache
def results_without_leak() -> list[TargetsResult]:
    return [attack_models_without_leak(seed) for seed in range(REPEATS)]


def auc_of_records(result: TargetsResult) -> np.ndarray:
    """The AUC of each record by itself, over all targets."""
    pairs = zip(result.scores.T, result.membership.T, strict=True)
    return np.array([auc(scores[member], scores[~member]) for scores, member in pairs])


def pooled_auc(result: TargetsResult) -> float:
    return auc(result.scores[result.membership], result.scores[~result.membership])


def test_auc_of_one_record_without_leak_is_below_one_half():
    values = np.array([auc_of_records(one).mean() for one in results_without_leak()])
    assert values.mean() + 4 * values.std(ddof=1) / np.sqrt(REPEATS) < 0.5


def test_auc_of_each_target_without_leak_is_one_half():
    values = np.array([
        np.mean([
            auc(s[m], s[~m]) for s, m in zip(one.scores, one.membership, strict=True) if 0 < m.sum() < RECORDS
        ])
        for one in results_without_leak()
    ])  # fmt: skip
    assert values.mean() == pytest.approx(0.5, abs=4 * values.std(ddof=1) / np.sqrt(REPEATS))


def test_pooled_auc_is_a_mean_in_which_one_record_by_itself_counts_once_in_their_number():
    result = results_without_leak()[0]
    member = result.membership
    across = np.mean([
        auc(result.scores[member[:, i], i], result.scores[~member[:, j], j])
        for i in range(RECORDS) for j in range(RECORDS) if i != j
    ])  # fmt: skip
    mixture = (1 - 1 / RECORDS) * across + auc_of_records(result).mean() / RECORDS
    assert pooled_auc(result) == pytest.approx(mixture, abs=1e-12)


def test_pooled_auc_without_leak_understates_by_at_most_the_share_of_a_record():
    values = np.array([pooled_auc(one) for one in results_without_leak()])
    bias = (auc_of_records_mean() - 0.5) / RECORDS
    assert -0.5 / RECORDS < bias < 0
    assert values.mean() == pytest.approx(0.5 + bias, abs=4 * values.std(ddof=1) / np.sqrt(REPEATS))


def auc_of_records_mean() -> float:
    return float(np.mean([auc_of_records(one).mean() for one in results_without_leak()]))

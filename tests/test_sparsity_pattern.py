"""The attack on the sparsity pattern: its ratios, what it may read, and the masks that a study collects for it."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

import small_study
from bound_results import bound_folder, edit
from wemem.attacks.channels import attacks_on_altered_answers, weights_held
from wemem.attacks.lira import Lira
from wemem.attacks.sparsity_pattern import SparsityPattern, likelihood_by_agreement, likelihood_by_inputs
from wemem.config.parse import parse_study
from wemem.errors import InputError
from wemem.metrics.rates import auc
from wemem.pipeline.patterns import joined_masks
from wemem.pipeline.progress import Silent
from wemem.pruning.masks import with_masks
from wemem.results.verify import verify
from wemem.store.store import Store
from wemem.study.run import run_study
from wemem.testing import planted
from wemem.testing.attacks import check_null
from wemem.training import Ensemble


@cache
def signals(leak, models=32):
    return planted.shared(leak, pool=200, outside=100, models=models)


def area(attack, seen, target=0):
    score, member = attack.score(seen, target, seed=0), seen.is_member(target)
    return auc(score[member], score[~member])


# Limit cases.


def test_without_pruned_weights_every_score_is_zero():
    seen = replace(signals(planted.LEAK), masks={})
    assert not SparsityPattern().score(seen, 0, seed=0).any()
    assert area(SparsityPattern(), seen) == 0.5


def test_a_weight_that_every_model_keeps_changes_no_score():
    """A bias towards members of more weights would come from weights that all models share."""
    seen = signals(planted.LEAK)
    kept = {**seen.masks, "other": np.ones((seen.num_models, 7), bool)}
    for compared in ("weights", "inputs"):
        attack = SparsityPattern(compared)
        np.testing.assert_allclose(
            attack.score(replace(seen, masks=kept), 0, seed=0), attack.score(seen, 0, seed=0), atol=1e-9
        )


def test_scores_of_weights_do_not_depend_on_the_order_of_the_weights_nor_of_the_inputs_on_that_of_the_outputs():
    seen, rng = signals(planted.LEAK), np.random.default_rng(0)
    (mask,) = seen.masks.values()
    shuffled = {"layer": mask.reshape(len(mask), -1)[:, rng.permutation(mask[0].size)]}
    expected = SparsityPattern("weights").score(seen, 0, seed=0)
    np.testing.assert_allclose(SparsityPattern("weights").score(replace(seen, masks=shuffled), 0, seed=0), expected)
    outputs = {"layer": np.stack([one[rng.permutation(len(one))] for one in mask])}
    expected = SparsityPattern("inputs").score(seen, 0, seed=0)
    np.testing.assert_allclose(SparsityPattern("inputs").score(replace(seen, masks=outputs), 0, seed=0), expected)


# Independent oracles.


def test_ratio_by_agreement_is_that_of_two_normals_over_all_weights():
    rng = np.random.default_rng(1)
    kept, target = rng.random((6, 50)) < 0.4, rng.random(50)
    trained = rng.permuted(np.tile([True, False], (5, 3)), axis=1).T
    expected = [
        0.5 * (np.square(target - kept[~one].mean(0)).sum() - np.square(target - kept[one].mean(0)).sum())
        for one in trained.T
    ]
    kept = kept.astype(float)
    np.testing.assert_allclose(likelihood_by_agreement(kept @ kept.T, trained, kept @ target), expected)


def test_ratio_by_inputs_is_that_of_normals_on_the_inputs_that_differ_most():
    rng = np.random.default_rng(2)
    known, target = rng.integers(0, 30, (8, 40)).astype(float), rng.integers(0, 30, 40).astype(float)
    trained = rng.permuted(np.tile([True, False], (5, 4)), axis=1).T
    sides = [(known[one], known[~one]) for one in trained.T]
    variances = np.array([(inside.var(axis=0) * 4 + outside.var(axis=0) * 4) / 6 for inside, outside in sides])
    variances = np.maximum(variances, 0.1 * np.median(known.var(axis=0)))
    scores = likelihood_by_inputs(known, trained, target)
    for score, variance, (inside, outside) in zip(scores, variances, sides, strict=True):
        means = inside.mean(axis=0), outside.mean(axis=0)
        ratio = (np.square(target - means[1]) - np.square(target - means[0])) / (2 * variance)
        most = np.argsort(np.square(means[0] - means[1]) / variance)[-16:]
        assert score == pytest.approx(ratio[most].sum())


# Properties.


def test_the_complementary_partner_of_a_target_is_no_reference():
    """Without a leak the partner's pattern still is one; a target is scored as if the partner were not there."""
    seen = signals(planted.LEAK, models=16)
    partner = seen.select([k for k in range(seen.num_models) if k != 2])  # models 1 and 2 are complementary
    np.testing.assert_allclose(
        SparsityPattern("inputs").score(seen, 1, seed=0), SparsityPattern("inputs").score(partner, 1, seed=0)
    )


def test_answers_are_not_read():
    seen = signals(planted.LEAK)
    silent = replace(seen, logits=np.zeros_like(seen.logits), extras={})
    np.testing.assert_array_equal(SparsityPattern().predict(silent).score, SparsityPattern().predict(seen).score)


# Planted leak and null.


def test_a_planted_trace_of_each_record_is_found_and_more_so_with_more_models():
    few, many = (area(SparsityPattern(), signals(planted.LEAK, models)) for models in (16, 32))
    assert many > 0.95 > few > 0.8


def test_a_trace_in_single_weights_shows_as_much_as_the_number_of_models_allows():
    """At most AUC Phi(sqrt(K / N)) = Phi(sqrt(30 / 200)) = 0.651 by 30 models, here over 32 targets."""
    seen = signals(planted.LEAK)
    mean = np.mean([area(SparsityPattern("weights"), seen, k) for k in range(1, seen.num_models)])
    assert 0.61 < mean < 0.651


def test_patterns_without_a_trace_stay_at_chance():
    for compared in ("auto", "weights", "inputs"):
        check_null(SparsityPattern(compared), signals(0.0))


# What an adversary has.


def test_altered_answers_hide_the_pattern_and_weights_show_it():
    attacks = {"lira": Lira(), "sparsity_pattern": SparsityPattern()}
    assert "sparsity_pattern" not in attacks_on_altered_answers(attacks)
    assert "sparsity_pattern (weights held)" in weights_held(attacks)


def test_an_adversary_with_answers_alone_is_refused_the_pattern(tmp_path):
    study = small_study.table(tmp_path / "data.npz", attacks=["sparsity_pattern"], adversary="answers")
    with pytest.raises(InputError, match="got 'sparsity_pattern', which reads the positions of pruned weights"):
        parse_study(study)


def test_an_attack_on_the_weights_alone_is_not_missing_in_results_of_altered_answers(tmp_path):
    attacks = ("lira", "lira (weights held)", "sparsity_pattern (weights held)")
    folder = bound_folder(tmp_path, {"hamp": 0.0}, attacks=attacks, altered=True)
    planned = {"lira": "lira", "sparsity_pattern": "sparsity_pattern", "rmia": "rmia"}
    edit(folder, lambda results: results["planned"].update(attacks=planned))
    (missing,) = [
        finding.text for finding in verify(folder).findings if finding.subject == "runs" and not finding.passed
    ]
    assert missing.endswith("lacks the planned attack rmia")


# Masks of a study.


def test_joined_masks_are_those_of_the_first_models_and_whole_where_another_ensemble_is_pruned():
    whole = Ensemble.from_modules([nn.Linear(2, 1) for _ in range(3)])
    keep = torch.tensor([[[True, False]], [[False, True]], [[True, True]]])
    pruned = with_masks(whole, {"weight": keep})
    assert joined_masks([(whole, 2)]) == {}
    joined = joined_masks([(whole, 1), (pruned, 2)])
    np.testing.assert_array_equal(joined["weight"], [[[1, 1]], [[1, 0]], [[0, 1]]])


@pytest.mark.slow
def test_a_study_attacks_the_masks_of_its_models(tmp_path):
    study = small_study.table(
        small_study.write_data(tmp_path), attacks=["lira", "sparsity_pattern"], defenses=["undefended", "hamp"]
    )
    outcomes = {o.label: o for o in run_study(parse_study(study), Store(tmp_path / "store"), Silent())}
    assert outcomes["dense"].signals["shared"].masks == {}
    masks = outcomes["undefended"].signals["shared"].masks
    own = outcomes["undefended"].rounds[-1].ensemble.masks
    assert masks is not None
    assert set(masks) == set(own)
    for name, mask in masks.items():
        np.testing.assert_array_equal(mask[0], own[name][0])
        assert mask.shape[0] == 5  # the victim and its four references
        assert 0.55 < 1 - mask.mean() < 0.65
        assert not np.array_equal(mask[1], mask[2])
    reports = {label: {result.name for result in outcome.report.results} for label, outcome in outcomes.items()}
    assert "sparsity_pattern" in reports["undefended"]
    assert "sparsity_pattern (weights held)" in reports["hamp"]
    assert "sparsity_pattern" not in reports["hamp"]

"""The attack on several releases: the weights of the releases, one release as LiRA, and what a study collects."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

import small_study
from wemem.attacks.lira import Lira
from wemem.attacks.releases import LiraReleases, discriminant
from wemem.config.parse import parse_study
from wemem.metrics.rates import auc
from wemem.pipeline.progress import Silent
from wemem.signals import logit_confidence
from wemem.store.store import Store
from wemem.study.run import run_study
from wemem.testing import planted


@cache
def signals():
    return planted.shared(planted.LEAK, pool=400, outside=100)


def released(*confidences, seen=None):
    """The planted signals with other releases."""
    return replace(seen or signals(), extras={"releases": np.stack(confidences, axis=2).astype(np.float32)})


def area(attack, seen):
    score, member = attack.score(seen, 0, seed=0), seen.is_member(0)
    return auc(score[member], score[~member])


# Limit cases.


@pytest.mark.parametrize("held", ["all", "rounds", "ends"])
def test_one_release_is_lira(held):
    seen = replace(signals(), extras={})
    once = released(seen.logit_confidence)
    several = LiraReleases(held=held, variance="shrunk", centre="mean")
    one = Lira(variance="shrunk", centre="mean")
    np.testing.assert_allclose(several.score(once, 0, seed=0), one.score(seen, 0, seed=0), rtol=1e-3)


def test_a_release_twice_is_that_release():
    own = signals().logit_confidence
    once, twice = (LiraReleases("shrunk", "mean").score(released(*[own] * times), 0, seed=0) for times in (1, 2))
    np.testing.assert_allclose(twice, once, rtol=1e-4)


def test_releases_without_any_spread_have_equal_weights():
    known = np.broadcast_to(np.array([2.0, 3.0]), (4, 5, 2))
    trained = np.repeat([[True], [True], [False], [False]], 5, axis=1)
    assert discriminant(known, trained).tolist() == [1.0, 1.0]


# An independent oracle.


def test_weights_are_those_of_fishers_discriminant():
    """Of one record, whose models are the observations of two classes."""
    rng = np.random.default_rng(0)
    trained = np.arange(30) % 2 == 0
    known = rng.normal(size=(30, 3)) @ rng.normal(size=(3, 3)) + np.outer(trained, [1.0, 0.5, -0.5])
    expected = LinearDiscriminantAnalysis(solver="lsqr").fit(known, trained).coef_[0]
    weights = discriminant(known[:, None], trained[:, None])
    np.testing.assert_allclose(weights / np.linalg.norm(weights), expected / np.linalg.norm(expected))


# Properties.


def test_the_scale_and_shift_of_a_release_do_not_matter():
    seen = signals()
    first, last = seen.extras["releases"][..., 0], seen.logit_confidence
    attack = LiraReleases("shrunk", "mean")
    expected = attack.score(released(first, last), 0, seed=0)
    np.testing.assert_allclose(attack.score(released(5 - 3 * first, last), 0, seed=0), expected, rtol=1e-3, atol=1e-4)


def test_weights_do_not_depend_on_the_target():
    seen = signals()
    releases = seen.extras["releases"].copy()
    releases[0] = releases[0, ::-1]
    changed = replace(seen, extras={"releases": releases})
    np.testing.assert_array_equal(LiraReleases().predict(changed).threshold, LiraReleases().predict(seen).threshold)


# Planted leaks.


def test_a_release_of_noise_costs_nothing_and_two_leaks_add_up():
    seen, rng = signals(), np.random.default_rng(1)
    own = seen.logit_confidence
    noise, again = rng.normal(size=own.shape), own + rng.normal(0, planted.NOISE, own.shape)
    alone = area(LiraReleases(), released(own))
    assert area(LiraReleases(), released(noise, own)) > alone - 0.01
    independent = planted.planted(seen.roles, seen.labels, "shared", planted.LEAK, seed=5).logit_confidence
    assert area(LiraReleases(), released(independent, own)) > alone + 0.005
    assert area(LiraReleases(), released(again, own)) < alone + 0.005


def test_a_difference_between_releases_is_found_where_neither_shows_it():
    """As under a defense that starts from a model that leaks: each release alone is drowned by what both share."""
    seen, rng = signals(), np.random.default_rng(2)
    shared, member = rng.normal(0, 5, seen.roles.shape), seen.roles == 1
    first, last = shared + 0.3 * rng.normal(size=shared.shape), shared + member
    both, *alone = (area(LiraReleases(), released(*one)) for one in ((first, last), (first,), (last,)))
    assert both > 0.95
    assert max(alone) < 0.7


# What a study collects.


@pytest.mark.slow
def test_a_study_collects_the_confidence_of_every_release_and_no_other_attack_changes(tmp_path):
    study = small_study.table(
        small_study.write_data(tmp_path),
        attacks=["lira", "lira_releases"],
        defenses=["undefended", "hamp"],
        pruning={"rounds": 2},
    )
    store = Store(tmp_path / "store")
    outcomes = {o.label: o for o in run_study(parse_study(study), store, Silent())}
    shared = {label: outcome.signals["shared"] for label, outcome in outcomes.items()}
    releases = {label: one.extras["releases"] for label, one in shared.items()}
    assert [releases[label].shape[2] for label in ("dense", "undefended", "hamp")] == [1, 3, 3]
    for label, one in shared.items():
        np.testing.assert_array_equal(releases[label][..., -1], one.logit_confidence.astype(np.float32))
    # the unpruned model answers without the defense that alters the answers of the others
    for label in ("undefended", "hamp"):
        np.testing.assert_array_equal(releases[label][..., 0], releases["dense"][..., 0])
    seen, ensemble = shared["undefended"], outcomes["undefended"].rounds[0].ensemble.select([0])
    logits = ensemble.logits(parse_study(study).data.load().features[seen.records])
    expected = logit_confidence(logits[0], seen.labels)
    np.testing.assert_allclose(releases["undefended"][0, :, 1], expected, rtol=1e-4, atol=1e-4)
    alone = parse_study(study | {"attacks": ["lira"], "defenses": ["undefended"]})
    plain = {o.label: o for o in run_study(alone, store, Silent())}["undefended"]
    together, apart = (one.report["lira"].output.score for one in (outcomes["undefended"], plain))
    np.testing.assert_array_equal(together, apart)

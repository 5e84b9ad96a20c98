"""Copies of table records as further queries: what they measure, and that an attack takes them only where they help."""

import numpy as np
import pytest
from scipy.special import log_softmax

from small_study import table, write_data
from wemem import queries
from wemem.attacks import make_attack
from wemem.config.parse import parse_study
from wemem.data.split import Role
from wemem.errors import InputError
from wemem.metrics.rates import auc
from wemem.pipeline.progress import Silent
from wemem.queries import COPY_RATES, DrawnCopies, confidence_in_copies, replace_features
from wemem.randomness import generator
from wemem.signals import COPIES_OF_EACH_KIND, UNKNOWN, Signals
from wemem.store.store import Store
from wemem.study.run import run_study

MODELS, RECORDS, COPIES = 9, 300, 2 * COPIES_OF_EACH_KIND
ATTACKS = ("lira", "lira_offline", "bavaria", "rmia")


class Linear:
    """Models with logits ``x W_k``."""

    def __init__(self, weights):
        self.weights = weights

    def __len__(self):
        return len(self.weights)

    def logits(self, features):
        return np.einsum("nf,kfc->knc", features, self.weights).astype(np.float32)


def signals_with(plain, copies, roles):
    """Two-class signals whose logit confidence is ``plain``, shape (K, N), beside that of copies, shape (K, N, V)."""
    logits = np.stack([plain / 2, -plain / 2], axis=2).astype(np.float32)
    labels = np.zeros(RECORDS, np.int64)
    extras = {"copies": copies.astype(np.float32)}
    return Signals(logits, labels, roles, np.arange(RECORDS), "shared", (UNKNOWN,) * MODELS, extras)


def drawn(seed, effect_on_plain, effect_on_copies):
    rng = np.random.default_rng(seed)
    member = np.concatenate(
        [rng.random((1, RECORDS)) < 0.5, *([half, ~half] for half in rng.random((4, RECORDS)) < 0.5)]
    )
    roles = np.where(member, Role.TRAIN, Role.AUDIT).astype(np.int8)
    plain = rng.normal(size=member.shape) + effect_on_plain * member
    copies = rng.normal(size=(*member.shape, COPIES)) + effect_on_copies * member[:, :, None]
    return signals_with(plain, copies, roles)


def test_copies_of_equal_records_have_the_confidence_of_the_record():
    features = np.ones((5, 4), np.float32)
    models = Linear(np.random.default_rng(0).normal(size=(3, 4, 2)))
    seen = confidence_in_copies(models, DrawnCopies().of(features, seed=1), np.array([0, 1, 0, 1, 0]))
    assert seen.shape == (3, 5, COPIES)
    np.testing.assert_array_equal(seen, np.broadcast_to(seen[:, :, :1], seen.shape))


@pytest.mark.parametrize(
    ("place", "rate", "copy"), [(0, COPY_RATES[0], 0), (COPIES - 1, COPY_RATES[1], COPIES_OF_EACH_KIND - 1)]
)
def test_the_confidence_in_a_copy_is_that_of_its_logits(place, rate, copy):
    rng = np.random.default_rng(2)
    features, labels = rng.normal(size=(40, 30)).astype(np.float32), rng.integers(0, 3, 40)
    models = Linear(rng.normal(size=(2, 30, 3)))
    moved = replace_features(features, rate, generator(1, "copies", str(rate), copy))
    probability = np.exp(log_softmax(models.logits(moved).astype(np.float64), axis=2))[:, np.arange(40), labels]
    seen = confidence_in_copies(models, DrawnCopies().of(features, seed=1), labels)[:, :, place]
    np.testing.assert_allclose(seen, np.log(probability / (1 - probability)), rtol=1e-4, atol=1e-4)
    assert 0 < (moved != features).mean() < 2 * rate


def test_replaced_features_are_those_of_the_drawn_donors():
    """Record by record and feature by feature, by the same two draws."""
    features = np.arange(24.0).reshape(6, 2, 2)
    donors, draws = (rng := generator(3, "donors")).integers(0, 6, features.shape), rng.random(features.shape)
    expected = features.copy()
    for place in np.argwhere(draws < 0.4):
        expected[tuple(place)] = features[(donors[tuple(place)], *place[1:])]
    np.testing.assert_array_equal(replace_features(features, 0.4, generator(3, "donors")), expected)


@pytest.mark.parametrize("whole", [False, True], ids=["reals", "bytes"])
def test_copies_are_drawn_once_and_equal_those_of_records_that_are_not_kept(whole, monkeypatch):
    first, second = np.random.default_rng(0).normal(size=(2, 40, 30)).astype(np.float32)
    first, second = (np.abs(np.round(100 * one)) % 256 if whole else one for one in (first, second))
    limit, drawn = 2 * COPIES * first.size * (1 if whole else 4), list[int]()

    def counted(*given):
        drawn.append(1)
        return replace_features(*given)

    monkeypatch.setattr(queries, "replace_features", counted)
    draws, none = DrawnCopies(limit), DrawnCopies(0)
    for features, seed in ((first, 1), (second, 1), (first, 2)):  # the third set displaces the first
        anew = list(none.of(features, seed=seed))
        assert len(anew) == COPIES
        for _ in range(2):
            np.testing.assert_array_equal(list(draws.of(features.copy(), seed=seed)), anew, strict=True)
    assert len(drawn) == 3 * 2 * COPIES
    list(draws.of(second, seed=1))
    assert len(drawn) == 3 * 2 * COPIES
    list(draws.of(first, seed=1))
    assert len(drawn) == 3 * 2 * COPIES + COPIES


@pytest.mark.parametrize("kind", ATTACKS)
def test_a_leak_in_copies_alone_is_found_and_copies_that_hide_a_leak_are_left_out(kind):
    attack = make_attack(kind)
    leaking, hiding = drawn(0, 0.0, 0.6), drawn(1, 2.0, 0.0)
    assert attack.tune(leaking, 0).settings["copies"] == "all"
    assert attack.tune(hiding, 0).settings["copies"] == "none"
    for signals, copies in ((leaking, "all"), (hiding, "none")):
        score, member = attack.score(signals, 0, seed=0), signals.is_member(0)
        np.testing.assert_array_equal(score, make_attack(kind, {"copies": copies}).score(signals, 0, seed=0))
        assert auc(score[member], score[~member]) > 0.65
    alone = make_attack(kind, {"copies": "none"}).score(leaking, 0, seed=0)
    assert abs(auc(alone[leaking.is_member(0)], alone[~leaking.is_member(0)]) - 0.5) < 0.12


@pytest.mark.parametrize("kind", ATTACKS)
def test_without_a_leak_copies_leave_the_attack_at_chance(kind):
    scores = []
    for seed in range(6):
        signals = drawn(seed, 0.0, 0.0)
        score, member = make_attack(kind).score(signals, 0, seed=0), signals.is_member(0)
        scores.append(auc(score[member], score[~member]))
    assert abs(np.mean(scores) - 0.5) < 0.05


def test_rmia_takes_copies_at_the_temperature_of_their_answers_alone():
    with pytest.raises(InputError, match="expected the temperature 1 with copies, got 2"):
        make_attack("rmia", {"temperature": 2.0, "copies": "far"})
    assert make_attack("rmia", {"temperature": 2.0}).tune(drawn(0, 0.0, 0.6), 0).settings["copies"] == "none"


@pytest.mark.slow
def test_attacks_by_reference_models_query_copies_of_table_records(tmp_path):
    own = table(write_data(tmp_path), attacks=["lira"], defenses=["undefended"])
    outcome = list(run_study(parse_study(own), Store(tmp_path / "store"), Silent()))[-1]
    signals = outcome.signals["shared"]
    assert signals.extras["copies"].shape == (*signals.logits.shape[:2], COPIES)
    near, far = np.split(np.abs(signals.extras["copies"] - signals.logit_confidence[:, :, None]), 2, axis=2)
    assert 0 < near.mean() < far.mean()

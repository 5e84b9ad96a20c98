"""Models whose answers are altered: what the answers still show, what the weights show, and files taken as they are."""

from functools import cache

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from small_study import table, write_data
from wemem.attacks.altered_answers import LiraLabels, LiraRank, LiraRepeated
from wemem.attacks.channels import attacks_on_altered_answers
from wemem.attacks.combined import Combined
from wemem.attacks.lira import Lira
from wemem.attacks.threshold import Confidence
from wemem.config.attack_entries import make_attacks
from wemem.config.parse import parse_study
from wemem.data.split import Role
from wemem.defenses import HAMP, RelaxLoss, Undefended
from wemem.metrics.rates import auc
from wemem.pipeline.progress import Silent
from wemem.queries import postprocessed, query_models
from wemem.results.arms import arms
from wemem.results.build import study_results
from wemem.results.reservations import _alters
from wemem.results.schema import results_schema
from wemem.signals import WEIGHTS_HELD, Signals
from wemem.store.store import Store
from wemem.study.attacking import AttackedModels, channels_of
from wemem.study.run import run_study

RECORDS, FEATURES, CLASSES, MODELS = 300, 120, 5, 17


class Ridge:
    """Linear models that memorize: ridge regression of random labels on 120 binary features of 150 records."""

    def __init__(self, weights):
        self.weights = weights

    def __len__(self):
        return len(self.weights)

    def logits(self, features):
        return np.einsum("nd,kdc->knc", 2 * features - 1, self.weights).astype(np.float32)


@cache
def memorizing():
    """Records, labels, roles, and models each trained on a random half of them."""
    rng = np.random.default_rng(0)
    features = (rng.random((RECORDS, FEATURES)) < 0.5).astype(np.float32)
    labels = rng.integers(0, CLASSES, RECORDS)
    first = np.stack([rng.permutation(np.arange(RECORDS) % 2 == 0) for _ in range((MODELS - 1) // 2)])
    victim = rng.permutation(np.arange(RECORDS) % 2 == 0)
    trained = np.vstack([victim[None], np.stack([first, ~first], axis=1).reshape(-1, RECORDS)])
    targets = 6 * np.eye(CLASSES)[labels]
    x = 2 * features - 1
    weights = [
        np.linalg.solve(x[member].T @ x[member] + 30 * np.eye(FEATURES), x[member].T @ targets[member])
        for member in trained
    ]
    roles = np.where(trained, Role.TRAIN, Role.AUDIT).astype(np.int8)
    return features, labels, roles, Ridge(np.stack(weights))


def signals_under(defense):
    features, labels, roles, models = memorizing()
    answers = query_models(
        postprocessed(models, defense, seed=1), features, labels, frozenset({"robustness", "repeated"}), seed=2
    )
    logits = answers.pop("logits")
    return Signals(logits, labels, roles, np.arange(RECORDS), "shared", ("same",) * MODELS, answers)


def mean_auc(attack, signals):
    """Over the victim and four reference models, attacked leave-one-out."""
    scores = [(attack.score(signals, k, seed=0), signals.is_member(k)) for k in range(5)]
    return np.mean([auc(s[m], s[~m]) for s, m in scores])


def test_altered_answers_hide_confidence_but_neither_labels_nor_ranks_nor_weights():
    altered, plain = signals_under(HAMP()), signals_under(Undefended())
    hidden, held = mean_auc(Lira(), altered), mean_auc(Lira(), plain)
    assert held > 0.95
    assert hidden < held - 0.05
    assert mean_auc(LiraRank(), altered) > hidden + 0.02
    assert mean_auc(LiraLabels(), altered) > hidden + 0.04
    suite = attacks_on_altered_answers({"combined": Combined()})
    assert mean_auc(suite["combined"], altered) > hidden + 0.04


def test_labels_at_perturbed_copies_are_the_same_whatever_is_done_to_scores():
    altered, plain = signals_under(HAMP()), signals_under(Undefended())
    np.testing.assert_array_equal(altered.extras["robustness"], plain.extras["robustness"])


def test_noise_that_is_drawn_for_each_answer_averages_out():
    """Noise of 8 times the logits' size, drawn anew for 64 answers, is one of 1 in their mean."""
    features, labels, roles, models = memorizing()

    draws = list(range(64))

    class Noisy(Ridge):
        def logits(self, features):
            clear = super().logits(features)
            return clear + 8 * np.random.default_rng(draws.pop()).standard_normal(clear.shape, np.float32)

    answers = query_models(Noisy(models.weights), features, labels, frozenset({"repeated"}), seed=0)
    signals = Signals(
        answers.pop("logits"), labels, roles, np.arange(RECORDS), "shared", ("same",) * MODELS, answers
    )  # fmt: skip
    assert mean_auc(LiraRepeated(), signals) > mean_auc(Lira(), signals) + 0.15


def test_models_that_answer_alike_are_asked_twice_only():
    features, labels, _, models = memorizing()
    asked = []

    class Counted(Ridge):
        def logits(self, features):
            asked.append(len(features))
            return super().logits(features)

    answers = query_models(Counted(models.weights), features, labels, frozenset({"repeated"}), seed=0)
    assert len(asked) == 2
    difference = answers["repeated"] - answers["logits"]
    np.testing.assert_allclose(difference - difference[..., :1], 0, atol=1e-5)


# Suites.


def test_suite_on_altered_answers_adds_what_fits_and_keeps_the_rest():
    suite = attacks_on_altered_answers(make_attacks(["confidence", "lira", "combined"]))
    assert list(suite) == ["confidence", "lira", "combined", "label_noise", "lira_labels", "lira_rank", "lira_repeated"]
    combined = suite["combined"]
    assert isinstance(combined, Combined)
    assert [part.name for part in combined.parts[-3:]] == ["lira_labels", "lira_rank", "lira_repeated"]
    assert list(attacks_on_altered_answers({"confidence": Confidence()})) == ["confidence", "label_noise"]
    given = {"mine": LiraLabels(variance="global"), "lira": Lira()}
    assert list(attacks_on_altered_answers(given)) == ["mine", "lira", "lira_rank", "lira_repeated"]


@pytest.mark.parametrize(
    ("adversary", "defense", "is_file", "ends"),
    [
        ("weights", HAMP(), False, [False, True]),
        ("answers", HAMP(), False, [False]),
        ("weights", HAMP(), True, [False]),
        ("weights", RelaxLoss(), False, [False]),
        ("weights", None, False, [False]),
    ],
)
def test_weights_are_a_channel_of_their_own_only_where_altered_answers(
    tmp_path, adversary, defense, is_file, ends
):  # fmt: skip
    config = parse_study(table(write_data(tmp_path), attacks=["confidence"], adversary=adversary))
    channels = channels_of(config, AttackedModels("arm", defense, 0.6, [], [], is_file=is_file))
    assert [all(label.endswith(WEIGHTS_HELD) for label in channel.attacks) for channel in channels] == ends
    altered = [channel.defense is not None for channel in channels]
    assert altered == [defense == HAMP() and not is_file, *[False] * (len(channels) - 1)]


@pytest.mark.slow
def test_a_study_reports_what_the_weights_show_and_the_worst_is_of_both(tmp_path):
    own = table(
        write_data(tmp_path), attacks=["confidence", "lira"], defenses=["undefended", "hamp"], leave_one_out=True,
        split={"shadows": 2, "references": 6}, controls=[],
    )  # fmt: skip
    config = parse_study(own)
    data = config.data.load()
    outcomes = list(run_study(config, Store(tmp_path / "store", lambda message: None), Silent(), data))
    results = study_results(config, data, outcomes)
    hamp = next(run for run in results["runs"] if run["defense"] == "hamp")
    plain = next(run for run in results["runs"] if run["defense"] == "undefended")
    assert hamp["altered_answers"]
    assert not plain["altered_answers"]
    assert {f"confidence{WEIGHTS_HELD}", f"lira{WEIGHTS_HELD}", "lira_labels", "label_noise"} <= set(hamp["attacks"])
    assert f"lira{WEIGHTS_HELD}" in hamp["leave_one_out"]
    worst = hamp["worst"]["auc"]
    assert worst["value"] == max(one["auc"] for one in hamp["attacks"].values())
    (arm,) = [arm for arm in arms(results) if arm.label == "hamp"]
    assert arm.strongest_by_seed("auc", arm.attacks) == {hamp["seed"]: worst["value"]}
    Draft202012Validator(results_schema()).validate(results)


def test_altered_answers_are_a_reservation_only_where_the_weights_were_not_attacked():
    run = {"defense": "hamp", "altered_answers": True, "attacks": {"lira": {}}}
    assert _alters(run)
    assert not _alters({**run, "attacks": {"lira": {}, f"lira{WEIGHTS_HELD}": {}}})
    assert not _alters({**run, "altered_answers": False})

"""Agreement with scores that independent implementations computed from the same logits."""

import json

import numpy as np
import pytest
from scipy.special import expit, log_softmax
from scipy.stats import norm

from wemem.attacks.lira import Lira, lira_offline, lira_online
from wemem.attacks.moments import side_moments
from wemem.attacks.rmia import RmiaOffline, chosen_mean, dominated, offline_prior
from wemem.attacks.threshold import Confidence, Entropy, ModifiedEntropy, confidence, entropy, modified_entropy
from wemem.data.split import Role
from wemem.metrics.rates import auc, best_threshold
from wemem.signals import Signals, logit_confidence


def assert_agree(ours, golden):
    np.testing.assert_allclose(ours, golden, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def golden(shared):
    """Arrays, and figures under ``figures``: model 0 is attacked, 1 is its shadow, 2..33 are reference models."""
    with np.load(shared / "golden" / "location-600.npz", allow_pickle=False) as archive:
        arrays = dict(archive)
    return arrays | {"figures": json.loads((shared / "golden" / "location-600.json").read_text())}


@pytest.fixture(scope="module")
def statistic(golden):
    return logit_confidence(golden["logits"], golden["labels"])


@pytest.fixture(scope="module")
def reference_signals(golden):
    """The attacked model and its reference models on the records and on the population."""
    members = [0, *range(2, 34)]
    roles = np.where(golden["membership"][members], Role.TRAIN, Role.AUDIT)
    population = golden["population_logits"][members]
    roles = np.hstack([roles, np.full((len(members), population.shape[1]), Role.UNUSED)]).astype(np.int8)
    return Signals(
        np.concatenate([golden["logits"][members], population], axis=1),
        np.concatenate([golden["labels"], golden["population_labels"]]).astype(np.int64),
        roles, np.arange(roles.shape[1]), "shared", ("golden",) * len(members),
    )  # fmt: skip


@pytest.fixture(scope="module")
def halves_signals(golden):
    """The attacked model judged on the second half of the records, the shadow on the first."""
    first = golden["first_half"]
    known = np.where(golden["membership"][:2], Role.TRAIN, Role.AUDIT)
    roles = np.where(np.stack([~first, first]), known, Role.UNUSED).astype(np.int8)
    labels = golden["labels"].astype(np.int64)
    return Signals(golden["logits"][:2], labels, roles, np.arange(len(labels)), "disjoint", ("golden",) * 2)


def test_lira_online_agrees(golden, statistic):
    """Scores reach 3,800 in size; the difference is below 1e-6 in absolute terms."""
    score = lira_online(statistic[2:], golden["membership"][2:], statistic[0], variance="record")
    assert_agree(score, golden["lira_online"])


def test_lira_online_with_global_variance_agrees(golden, statistic):
    score = lira_online(statistic[2:], golden["membership"][2:], statistic[0], variance="global")
    assert_agree(score, golden["lira_online_global_variance"])


def test_the_lira_attack_on_signals_agrees(golden, reference_signals):
    score = Lira(variance="record", centre="median").score(reference_signals, 0, seed=0)
    assert_agree(score, golden["lira_online"])


def test_auc_of_lira_agrees(golden, statistic):
    member = golden["membership"][0]
    known, trained, target = statistic[2:], golden["membership"][2:], statistic[0]
    scores = {
        "lira_online": lira_online(known, trained, target, variance="record"),
        "lira_online_global_variance": lira_online(known, trained, target, variance="global"),
    }
    for key, score in scores.items():
        assert_agree(auc(score[member], score[~member]), golden["figures"]["auc"][key])


def test_the_two_sided_offline_form_follows_from_our_normals(golden, statistic):
    """The golden one is ``-log N(s; out)``, which also calls records members that the target knows *less* well than
    models without them do. Ours is the paper's one-sided test; it differs by that, and by nothing else."""
    out = ~golden["membership"][2:]
    outside = side_moments(statistic[2:], out)
    centre, spread = outside.median, outside.spread("record", None)
    assert_agree(-norm.logpdf(statistic[0], centre, spread), golden["lira_offline_logpdf"])
    z = lira_offline(statistic[2:], ~out, statistic[0], variance="record")
    assert_agree(0.5 * z**2 + np.log(spread) + 0.5 * np.log(2 * np.pi), golden["lira_offline_logpdf"])
    member = golden["membership"][0]
    two_sided = golden["lira_offline_logpdf"]
    assert auc(z[member], z[~member]) > auc(two_sided[member], two_sided[~member])


@pytest.mark.parametrize(("a", "key"), [(0.0, "rmia_offline_a0"), (0.3, "rmia_offline_a03"), (1.0, "rmia_offline_a1")])
def test_rmia_agrees_but_for_the_mean_over_the_population(golden, statistic, a, key):
    """A population record is in no model, so its mean goes over all 32. The golden one goes over the 16 highest: code
    that sorts in-models away as zeros and keeps half of the models meets records without a zero. With that mean
    ours is the golden score; with the right one it puts the records in the same order, and so has its AUC."""
    values = expit(statistic)
    ratios = values[0] / offline_prior(chosen_mean(values[2:], ~golden["membership"][2:]), a)
    population = expit(logit_confidence(golden["population_logits"], golden["population_labels"]))
    highest_half = np.sort(population[2:], axis=0)[16:].mean(axis=0)
    theirs = dominated(ratios, population[0] / offline_prior(highest_half, a), 1.0)
    assert_agree(theirs, golden[key])
    by_ratio = np.argsort(ratios)
    ours = dominated(ratios, population[0] / offline_prior(population[2:].mean(axis=0), a), 1.0)
    assert (np.diff(ours[by_ratio]) >= 0).all()
    assert (np.diff(theirs[by_ratio]) >= 0).all()
    member = golden["membership"][0]
    figure = golden["figures"]["auc"][f"rmia_offline_a{a}"]
    assert_agree(auc(theirs[member], theirs[~member]), figure)


def test_the_rmia_attack_on_signals_is_the_papers_double_loop(golden, reference_signals):
    """Both sums written out, without a library function in common."""
    probability = np.exp(log_softmax(reference_signals.logits.astype(np.float64), axis=-1))
    true = probability[:, np.arange(900), reference_signals.labels]
    trained = golden["membership"][2:]

    def ratio(row):
        out = [true[1 + k, row] for k in range(32) if row >= 600 or not trained[k, row]]
        return true[0, row] / (0.65 * np.mean(out) + 0.35)

    ratios = [ratio(row) for row in range(900)]
    expected = [np.mean([ratios[x] / ratios[z] >= 1.0 for z in range(600, 900)]) for x in range(600)]
    score = RmiaOffline(gamma=1.0, a=0.3, temperature=1.0).score(reference_signals, 0, seed=0)
    assert_agree(score, expected)


def test_entropies_agree(golden):
    log_probabilities = log_softmax(golden["logits"][0].astype(np.float64), axis=-1)
    assert_agree(entropy(log_probabilities), golden["entropy"])
    assert_agree(modified_entropy(log_probabilities, golden["labels"]), golden["modified_entropy"])


@pytest.mark.parametrize("attack", [Confidence(), Entropy(), ModifiedEntropy()], ids=lambda attack: attack.name)
def test_balanced_accuracy_with_thresholds_per_class_agrees(golden, halves_signals, attack):
    output = attack.predict(halves_signals)
    called, member = output.score >= output.threshold, halves_signals.is_member(0)
    accuracy = (called[member].mean() + (~called[~member]).mean()) / 2
    expected = golden["figures"]["threshold_per_class_balanced_accuracy"][attack.name]
    assert_agree(accuracy, expected)


@pytest.mark.parametrize("name", ["confidence", "entropy", "modified_entropy"])
def test_balanced_accuracy_with_one_threshold_agrees(golden, name):
    score = {
        "confidence": confidence,
        "entropy": lambda p, _: -entropy(p),
        "modified_entropy": lambda p, y: -modified_entropy(p, y),
    }[name]
    victim, shadow = (score(log_softmax(x.astype(np.float64), axis=-1), golden["labels"]) for x in golden["logits"][:2])
    first, member = golden["first_half"], golden["membership"]
    threshold = best_threshold(shadow[first & member[1]], shadow[first & ~member[1]])
    hits, rejects = victim[~first & member[0]] >= threshold, victim[~first & ~member[0]] < threshold
    expected = golden["figures"]["threshold_global_balanced_accuracy"][name]
    assert_agree((hits.mean() + rejects.mean()) / 2, expected)

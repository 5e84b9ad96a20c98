"""What an attacker sees: refused if it does not hold, and queried as the definitions say."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from wemem.data.split import Role
from wemem.errors import InputError
from wemem.models import FullyConnected
from wemem.queries import query_models, robustness, sensitivity, whole_numbers
from wemem.randomness import generator
from wemem.signals import BLOCK, EXTRAS, ROBUSTNESS_COPIES, UNKNOWN, logit_confidence
from wemem.testing import planted
from wemem.training import Ensemble


@pytest.fixture(scope="module")
def disjoint():
    return planted.disjoint(1.0, records=200, shadows=3)


@pytest.fixture(scope="module")
def shared():
    return planted.shared(1.0, pool=60, outside=150, models=6)


def linear(weights: np.ndarray) -> Ensemble:
    """One member per leading row: ``x -> W x``."""
    modules = []
    for own in weights:
        module = nn.Linear(own.shape[1], own.shape[0], bias=False)
        module.weight.data = torch.tensor(own, dtype=torch.float32)
        modules.append(module)
    return Ensemble.from_modules(modules)


def test_audited_rows_are_members_and_nonmembers_in_order(disjoint):
    rows = disjoint.audited(0)
    roles = disjoint.roles[0]
    assert rows.tolist() == [i for i in range(200) if roles[i] in (Role.TRAIN, Role.AUDIT)]
    assert disjoint.is_member(0).tolist() == [roles[i] == Role.TRAIN for i in rows]


def test_population_is_what_nobody_uses(shared):
    assert shared.population.tolist() == [i for i in range(210) if not shared.roles[:, i].any()]
    assert len(shared.population)


def test_without_a_member_leaves_the_others_as_they_are(shared):
    rest = shared.without(2)
    assert rest.num_models == shared.num_models - 1
    assert np.array_equal(rest.logits, np.delete(shared.logits, 2, axis=0))
    assert np.array_equal(rest.roles, np.delete(shared.roles, 2, axis=0))
    for name, array in shared.extras.items():
        assert np.array_equal(rest.extras[name], np.delete(array, 2, axis=0))


def test_statistics_that_were_computed_are_kept_in_a_selection():
    fresh = planted.shared(1.0, pool=60, outside=150, models=6)
    expected = fresh.select([3, 1]).logit_confidence
    assert "logit_confidence" not in fresh.__dict__
    everything = fresh.logit_confidence
    assert np.array_equal(fresh.select([3, 1]).logit_confidence, everything[[3, 1]])
    assert np.array_equal(expected, everything[[3, 1]])


def test_shadows_without_the_victim_claim_no_disjointness(disjoint, shared):
    assert disjoint.without(0).layout == "shadows"
    assert disjoint.without(1).layout == "disjoint"
    assert shared.without(0).layout == "shared"


@pytest.mark.parametrize(
    ("provenance", "adaptive"),
    [(("a",) * 4, True), (("a", "a", "b", "a"), False), ((UNKNOWN,) * 4, False), ((UNKNOWN, "a", "a", "a"), False)],
)
def test_adaptive_means_all_made_alike_and_known(provenance, adaptive, disjoint):
    assert replace(disjoint, provenance=provenance).adaptive is adaptive


def test_probabilities_are_the_softmax(disjoint):
    rows = np.array([5, 0, 7])
    expected = torch.softmax(torch.from_numpy(disjoint.logits[1, rows]).double(), -1).numpy()
    np.testing.assert_allclose(disjoint.probabilities(1, rows), expected, rtol=1e-12)
    np.testing.assert_allclose(disjoint.log_probabilities(1, rows), np.log(expected), rtol=1e-12)


@given(st.integers(2, 6), st.integers(1, 9), st.integers(0, 10**6))
def test_logit_confidence_is_the_logit_of_the_true_class(classes, n, seed):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(0, 3, (2, n, classes)), rng.integers(0, classes, n)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    true = p[:, np.arange(n), labels]
    np.testing.assert_allclose(logit_confidence(logits, labels), np.log(true / (1 - true)), rtol=1e-6, atol=1e-9)


def test_logit_confidence_does_not_depend_on_blocks():
    rng = np.random.default_rng(0)
    n = BLOCK // 2 + 3
    logits, labels = rng.normal(0, 1, (n, 2)).astype(np.float32), rng.integers(0, 2, n)
    difference = (logits[:, 0].astype(np.float64) - logits[:, 1]) * np.where(labels == 0, 1, -1)
    np.testing.assert_allclose(logit_confidence(logits, labels), difference, rtol=1e-12)


def test_one_class_tells_nothing():
    with pytest.raises(InputError, match="at least 2 classes"):
        logit_confidence(np.zeros((3, 1)), np.zeros(3, np.int64))


def test_statistic_of_every_query_is_that_of_its_logits(shared):
    for q in range(planted.QUERIES):
        expected = logit_confidence(shared.extras["queries"][:, :, q], shared.labels)
        assert np.array_equal(shared.query_logit_confidence[:, :, q], expected)


def changed(**parts: Any):
    return lambda s: replace(s, **{name: make(s) for name, make in parts.items()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(logits=lambda s: s.logits[0]), r"logits \(K, N, C\)"),
        (changed(labels=lambda s: s.labels[:-1]), "labels of shape"),
        (changed(roles=lambda s: s.roles[:-1]), "roles of shape"),
        (changed(records=lambda s: s.records[1:]), "records of shape"),
        (changed(provenance=lambda s: s.provenance[1:]), "4 provenance fingerprints, got 3"),
        (changed(labels=lambda s: s.labels + 1), "labels 0..4"),
        (changed(labels=lambda s: s.labels - 1), "labels 0..4"),
        (changed(extras=lambda s: {"gradients": s.logits}), "extras among"),
        (changed(extras=lambda s: {"dense": s.logits[:, 1:]}), "dense of shape"),
        (changed(extras=lambda s: {"dense": np.full_like(s.logits, np.inf)}), "finite dense"),
        (changed(logits=lambda s: np.where(s.logits > 1, np.nan, s.logits)), "finite logits"),
        (changed(roles=lambda s: np.full_like(s.roles, Role.TRAIN)), "no audited record among the shadows"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_what_does_not_hold_is_refused_in_one_line(change, message, disjoint):
    with pytest.raises(InputError, match=message) as refused:
        change(disjoint)
    assert "\n" not in str(refused.value)


def test_every_planted_extra_is_documented(shared):
    # copies are beside queries of no use, and have planted signals of their own (test_copies.py)
    assert set(shared.extras) == set(EXTRAS) - {"copies"}


def test_queries_collect_what_is_needed_and_no_more():
    ensemble = Ensemble.initialize(FullyConnected((4,)), (3,), 2, [0, 1, 2])
    x, y = generator(0, "x").standard_normal((7, 3), np.float32), np.zeros(7, np.int64)
    assert set(query_models(ensemble, x, y, frozenset(), seed=0)) == {"logits"}
    found = query_models(ensemble, x, y, frozenset({"sensitivity", "robustness", "dense"}), seed=0)
    assert {name: array.shape for name, array in found.items()} == {
        "logits": (3, 7, 2), "sensitivity": (3, 7, 2), "robustness": (3, 7),
    }  # fmt: skip
    assert np.array_equal(found["logits"][1], ensemble.select([1]).logits(x)[0])


def test_sensitivity_of_a_constant_model_is_zero():
    x = np.ones((5, 3), np.float32)
    p = np.full((1, 5, 2), 0.5, np.float32)
    assert not sensitivity(linear(np.zeros((1, 2, 3))), x, p, seed=0).any()


def test_sensitivity_is_the_mean_directional_difference():
    """For a linear model and a small step: the mean over the very directions of ``|J u|``, J the softmax's Jacobian."""
    rng = np.random.default_rng(0)
    w, x = rng.normal(0, 1, (1, 3, 4)), rng.normal(0, 1, (6, 4)).astype(np.float32)
    z = x @ w[0].T
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    slopes = np.zeros((6, 3))
    for d in range(10):
        u = generator(3, "sensitivity", d).standard_normal(x.shape, np.float32)
        dz = u @ w[0].T
        slopes += np.abs(p * (dz - (p * dz).sum(1, keepdims=True))) / 10
    found = sensitivity(linear(w), x, p[None].astype(np.float32), seed=3, step=1e-2)
    np.testing.assert_allclose(found[0], slopes, atol=0.02)


def test_robustness_is_the_share_of_copies_with_the_label():
    """A model that always says class 1 is robust on every record of it, and on no other."""
    always = nn.Linear(4, 2)
    always.weight.data.zero_()
    always.bias.data = torch.tensor([0.0, 1.0])
    x, y = np.random.default_rng(0).normal(0, 1, (6, 4)).astype(np.float32), np.array([0, 1] * 3)
    assert robustness(Ensemble.from_modules([always]), x, y, seed=0)[0].tolist() == [0, 1] * 3


@pytest.mark.parametrize("binary", [True, False])
def test_records_far_from_the_boundary_are_more_robust(binary):
    rng = np.random.default_rng(0)
    n, features = 60, 40
    values = (rng.random((n, features)) < 0.5) if binary else rng.normal(0, 1, (n, features))
    x = values.astype(np.float32)
    margin = x.sum(1) - x.sum(1).mean()
    model = nn.Linear(features, 2)
    model.weight.data = torch.stack([torch.zeros(features), torch.ones(features)])
    model.bias.data = torch.tensor([0.0, -float(x.sum(1).mean())])
    labels = (margin > 0).astype(np.int64)
    found = robustness(Ensemble.from_modules([model]), x, labels, seed=0)[0]
    far = np.abs(margin) >= np.median(np.abs(margin))
    assert found[far].mean() > found[~far].mean() + 0.1
    np.testing.assert_allclose(found * ROBUSTNESS_COPIES, np.round(found * ROBUSTNESS_COPIES), atol=1e-4)


def test_queries_are_the_image_and_its_mirror_image():
    images = np.random.default_rng(0).normal(size=(5, 1, 2, 4)).astype(np.float32)

    class Pixels:
        def __len__(self):
            return 1

        def logits(self, features):
            return features.reshape(1, len(features), -1)

    found = query_models(Pixels(), images, np.zeros(5, np.int64), frozenset({"queries"}), seed=0)
    np.testing.assert_array_equal(found["queries"][0, :, 0], images.reshape(5, 8))
    np.testing.assert_array_equal(found["queries"][0, :, 1], images[..., ::-1].reshape(5, 8))


def test_tokens_stay_tokens_when_they_are_perturbed():
    """Every query of sensitivity and robustness holds values that the same column has elsewhere."""
    rng = np.random.default_rng(0)
    tokens = (rng.integers(0, 50, (40, 6)) + 100 * np.arange(6)).astype(np.float32)
    seen = []

    class Embedding:
        def __len__(self):
            return 1

        def logits(self, features):
            seen.append(features)
            return np.stack([features.sum(1), -features.sum(1)], axis=1)[None].astype(np.float32) / 1000

    required = frozenset({"sensitivity", "robustness"})
    found = query_models(Embedding(), tokens, np.zeros(40, np.int64), required, seed=0)
    for features in seen:
        assert all(np.isin(features[:, c], tokens[:, c]).all() for c in range(6))
    assert any((features != tokens).any() for features in seen)
    assert (found["sensitivity"] > 0).any()


def test_whole_numbers_are_told_from_bits_and_reals():
    assert whole_numbers(np.array([[3.0, 0.0], [1.0, 2.0]], np.float32))
    assert not whole_numbers(np.array([[1.0, 0.0]], np.float32))
    assert not whole_numbers(np.array([[0.5, 2.0]], np.float32))

"""Linear teachers: as scikit-learn trains them, and blind to the labels that they are to hide."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from toy import blobs, split_of
from wemem.data.dataset import Dataset
from wemem.data.split import Role
from wemem.data.teachers import held_out
from wemem.data.views import Views
from wemem.defenses import Teachers, make_defense
from wemem.errors import InputError
from wemem.training.linear import fit_discriminants
from wemem.training.teacher_targets import linear_log_probabilities

TEACHERS = Teachers(4, 2, components=2)


def test_by_means_of_classes_the_models_are_those_of_scikit_learn(monkeypatch):
    monkeypatch.setattr("wemem.training.linear.STEPS", 0)
    data = blobs(300, noise=2.0)
    seen = np.random.default_rng(0).random((2, 300)) < 0.6
    ours = fit_discriminants(data.features, data.labels, seen, 3, 4).probabilities(data.features)
    for rows, p in zip(seen, ours, strict=True):
        oracle = make_pipeline(PCA(4, svd_solver="full"), LinearDiscriminantAnalysis(solver="lsqr"))
        theirs = oracle.fit(data.features[rows].astype(np.float64), data.labels[rows])
        assert np.abs(p - theirs.predict_proba(data.features.astype(np.float64))).max() < 1e-3


def test_a_class_lies_at_its_geometric_median(monkeypatch):
    """With one class far away, the other's boundary tells its centre: the sum of distances is least there."""
    monkeypatch.setattr("wemem.training.linear.STEPS", 60)
    x = np.random.default_rng(1).standard_exponential((60, 2))
    far = np.concatenate([x, x + 100.0])
    labels = np.repeat([0, 1], 60)
    model = fit_discriminants(far, labels, np.ones((1, 120), bool), 2, 2)
    # between equal classes the boundary is half way: both medians move together, so their middle is on it
    whitened = np.linalg.cholesky(np.linalg.inv(np.cov(x.T, bias=True)))
    found = minimize(lambda c: np.linalg.norm((x - c) @ whitened, axis=1).sum(), x.mean(0), tol=1e-10).x
    odds = np.diff((found + 50.0) @ model.weight[0] + model.bias[0, 0])
    scale = np.abs(np.diff(model.weight[0])).max()
    assert abs(odds[0]) / scale < 0.001
    assert np.abs(x.mean(0) - found).max() > 0.05


def test_a_component_more_than_there_are_directions_changes_nothing():
    data, seen = blobs(60), np.ones((1, 60), bool)
    all_, more = (fit_discriminants(data.features, data.labels, seen, 3, count) for count in (6, 100))
    assert np.allclose(all_.probabilities(data.features), more.probabilities(data.features))


def test_a_constant_feature_and_a_class_without_records_leave_probabilities_finite():
    data = blobs(60)
    x = np.concatenate([data.features, np.ones((60, 2), np.float32)], axis=1)
    p = fit_discriminants(x, data.labels, np.ones((1, 60), bool), 4, 8).probabilities(x)
    assert np.isfinite(p).all()
    assert np.allclose(p.sum(-1), 1)
    assert p[..., 3].max() < 0.5


def test_a_mislabelled_record_moves_a_discriminant_less_than_a_logistic_regression():
    data = blobs(300, noise=1.0)
    wrong, labels = data.features[:1], data.labels.copy()
    labels[0] = (labels[0] + 1) % 3
    seen = np.ones((1, 300), bool)

    def odds(p: np.ndarray) -> float:
        return float(np.log(p[labels[0]]) - np.log(p[data.labels[0]]))

    ours = [
        odds(fit_discriminants(data.features, own, seen, 3, 4).probabilities(wrong)[0, 0])
        for own in (data.labels, labels)
    ]
    theirs = [
        odds(LogisticRegression(C=3.0, max_iter=1000).fit(data.features, own).predict_proba(wrong)[0])
        for own in (data.labels, labels)
    ]
    assert 0 < ours[1] - ours[0] < 0.5 * (theirs[1] - theirs[0])


@pytest.mark.parametrize("clusters", [0, 2])
def test_the_target_of_a_record_does_not_depend_on_its_label(clusters):
    data = blobs(90, noise=2.0)
    split, source = split_of(data, members=2), replace(TEACHERS, clusters=clusters, views=Views(1, 0.2))
    parts = held_out(split, source, [3, 4], data.features)
    record = int(split.records(0, Role.TRAIN)[5])
    labels = data.labels.copy()
    labels[record] = (labels[record] + 1) % 3
    flipped = Dataset("flipped", data.features, labels, 3)
    before = linear_log_probabilities(parts, split, data, source)
    after = linear_log_probabilities(parts, split, flipped, source)
    assert source.views is not None
    donors = source.views.draw([split.records(k, Role.TRAIN) for k in range(2)], len(data), data.input_shape).donors
    train = split.records(0, Role.TRAIN)
    given = train[donors[0, 0, train] == record]
    assert len(given)
    for place in (record, record + len(data), *(given + len(data))):  # the record, its view, and those it gives to
        assert np.array_equal(before[0, place], after[0, place], equal_nan=True)
    others = np.setdiff1d(split.records(0, Role.TRAIN), [record])
    assert not np.array_equal(before[0, others], after[0, others])


def test_targets_are_probabilities_at_training_records_and_zero_elsewhere():
    data = blobs(90)
    split = split_of(data, members=2)
    targets = linear_log_probabilities(held_out(split, TEACHERS, [3, 4], data.features), split, data, TEACHERS)
    for k in range(2):
        train = split.records(k, Role.TRAIN)
        assert np.allclose(np.exp(targets[k, train]).sum(-1), 1, atol=1e-5)
        assert not targets[k, np.setdiff1d(np.arange(90), train)].any()


def test_by_default_records_decide_who_teaches_and_on_how_many_components():
    data, tokens = blobs(90), Dataset("tokens", np.zeros((4, 2), np.int64), np.array([0, 1, 0, 1]), 2)
    assert [Teachers(4, 2).linear(one) for one in (data, tokens)] == [True, False]
    assert [Teachers(4, 2, components=0).linear(one) for one in (data, tokens)] == [False, False]
    tries = [Teachers(4, 2).components_of(records, 10) for records in (1, 600, 10**6)]
    assert tries == [[1, 2, 4, 8, 16, 32, 64, 128], [30, 60, 120], [128]]


def test_whole_number_features_and_negative_components_are_refused():
    data = blobs(90)
    with pytest.raises(InputError, match="real-valued features"):
        held_out(split_of(data), TEACHERS, [1, 2, 3], data.features.astype(np.int64))
    with pytest.raises(InputError, match="components must be 0 or more"):
        make_defense("oosd", {"components": -1})

"""Linear teachers: as scikit-learn trains them, and blind to the labels that they are to hide."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from toy import blobs, split_of
from wemem.data.dataset import Dataset
from wemem.data.split import Role
from wemem.data.teachers import held_out
from wemem.data.views import Views
from wemem.defenses import Teachers, make_defense
from wemem.errors import InputError
from wemem.pipeline.teacher import linear_log_probabilities
from wemem.training.linear import PENALTY, Components, fit_linear

TEACHERS = Teachers(4, 2, components=2)


def test_with_all_components_projection_keeps_every_distance():
    x = blobs(60).features
    z = Components.of(x, 6).project(x)
    assert np.allclose(np.linalg.norm(x[0] - x[1]), np.linalg.norm(z[0] - z[1]))
    assert Components.of(x, 100).project(x).shape == (60, 6)


def test_components_are_those_of_scikit_learn_up_to_the_sign():
    x = blobs(60).features
    ours, theirs = Components.of(x, 3).project(x), PCA(3).fit_transform(x)
    assert np.allclose(np.abs(ours), np.abs(theirs), atol=1e-4)


def test_the_models_are_those_of_scikit_learn():
    data = blobs(300, noise=2.0)
    seen = np.random.default_rng(0).random((2, 300)) < 0.6
    components = Components.of(data.features, 4)
    ours = fit_linear(components, data.features, data.labels, seen, 3).probabilities(data.features)
    for rows, p in zip(seen, ours, strict=True):
        z = components.project(data.features)
        theirs = LogisticRegression(C=PENALTY, max_iter=1000, tol=1e-8).fit(z[rows], data.labels[rows])
        assert np.abs(p - theirs.predict_proba(z)).max() < 0.01


def test_probabilities_add_up_to_one():
    data = blobs(60)
    models = fit_linear(Components.of(data.features, 2), data.features, data.labels, np.ones((1, 60), bool), 3)
    assert np.allclose(models.probabilities(data.features).sum(-1), 1, atol=1e-6)


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
    for place in (record, record + len(data)):  # the record, and its view
        assert np.array_equal(before[0, place], after[0, place])
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


def test_whole_number_features_and_negative_components_are_refused():
    data = blobs(90)
    with pytest.raises(InputError, match="real-valued features"):
        held_out(split_of(data), TEACHERS, [1, 2, 3], data.features.astype(np.int64))
    with pytest.raises(InputError, match="components must be 0 or more"):
        make_defense("oosd", {"components": -1})

"""Random Fourier features: near the Gaussian kernel, blind to scale, and good for linear teachers."""

import numpy as np
import pytest

from toy import split_of
from wemem.data.dataset import Dataset
from wemem.data.fourier_features import COSINES, SPREAD, FourierFeatures
from wemem.data.split import Role
from wemem.data.teachers import held_out
from wemem.data.views import Views
from wemem.defenses import Teachers
from wemem.training.linear import fit_discriminants
from wemem.training.teacher_targets import linear_log_probabilities

POINTS = np.random.default_rng(3).standard_normal((60, 5)).astype(np.float32)


def crossed(records: int, features: int = 2) -> Dataset:
    """Records whose class is the sign of a product, so that no plane divides the classes."""
    x = np.random.default_rng(0).standard_normal((records, features)).astype(np.float32)
    return Dataset("crossed", x, (x[:, 0] * x[:, 1] > 0).astype(np.int64), 2)


def test_inner_products_of_cosines_are_half_a_gaussian_kernel():
    cosines = FourierFeatures.fit(POINTS).apply(POINTS)[:, POINTS.shape[1] :]
    z = (POINTS - POINTS.mean(0)) / POINTS.std(0) / np.sqrt(5)
    distance = ((z[:, None] - z) ** 2).sum(-1)
    assert np.abs(2 * cosines @ cosines.T - np.exp(-(SPREAD**2) * distance / 2)).max() < 5 / np.sqrt(COSINES)


def test_units_of_the_columns_change_nothing():
    scaled = POINTS * np.array([1, 1e-3, 1e3, -2, 5], np.float32) + 7
    ours, theirs = (FourierFeatures.fit(x).apply(x) for x in (POINTS * np.array([1, 1, 1, -1, 1]), scaled))
    assert np.allclose(ours, theirs, atol=1e-2)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_a_constant_column_counts_as_zero(value):
    x = np.concatenate([POINTS, np.full((60, 1), value, np.float32)], axis=1)
    features = FourierFeatures.fit(x).apply(x)
    assert np.isfinite(features).all()
    assert not features[:, 5].any()


def test_discriminants_know_classes_by_them_that_no_plane_divides():
    data, seen = crossed(900), np.arange(900)[None] < 400

    def right(x: np.ndarray) -> float:
        p = fit_discriminants(x, data.labels, seen, 2, 60).probabilities(x[400:])[0]
        return float((p.argmax(1) == data.labels[400:]).mean())

    assert right(data.features) < 0.65
    assert right(FourierFeatures.fit(data.features[:400]).apply(data.features)) > 0.85


def named(data: Dataset, source: Teachers) -> float:
    split = split_of(data, members=1)
    targets = linear_log_probabilities(held_out(split, source, [0], data.features), split, data, source)
    own = split.records(0, Role.TRAIN)
    return float((targets[0, own].argmax(1) == data.labels[own]).mean())


def test_teachers_of_a_narrow_table_know_classes_that_no_plane_divides():
    assert named(crossed(400), Teachers(4, 2)) > 0.75


def test_views_are_standardized_by_the_training_records():
    data, source = crossed(200), Teachers(4, 2, components=7, views=Views(1, 0.3))
    split = split_of(data, members=1)
    parts, own = held_out(split, source, [0], data.features), split.records(0, Role.TRAIN)
    drawn = Views(1, 0.3).draw([own], len(data), data.input_shape)
    donors = drawn.donors[0, 0, own]
    x = np.where(drawn.patterns[drawn.pattern[0, own]], data.features[donors], data.features[own])
    fourier = FourierFeatures.fit(data.features[own])
    seen = parts.roles[:, own] == Role.TRAIN
    models = fit_discriminants(fourier.apply(data.features[own]), data.labels[own], seen, 2, 7)
    unseen = ~seen & (parts.roles[:, donors] == Role.AUDIT)
    some = unseen.any(axis=0)
    p = (models.probabilities(fourier.apply(x)) * unseen[..., None]).sum(0)[some] / unseen.sum(0)[some, None]
    targets = linear_log_probabilities(parts, split, data, source)[0, len(data) + own]
    assert np.allclose(np.exp(targets[some]), p, atol=1e-5)
    assert np.isnan(targets[~some]).all()


def test_more_components_are_taken_where_unseen_records_gain(monkeypatch):
    tried: list[int] = []

    def recorded(x, labels, seen, classes, components):
        tried.append(components)
        return fit_discriminants(x, labels, seen, classes, components)

    monkeypatch.setattr("wemem.training.teacher_targets.fit_discriminants", recorded)
    monkeypatch.setattr("wemem.data.teachers.COMPONENTS_PER_RECORD", 0.02)
    data = crossed(400)  # 2 components are the features, which say nothing of the class
    named(data, Teachers(4, 2))
    assert tried[:3] == [tried[0], 2 * tried[0], 4 * tried[0]]
    tried.clear()
    apart = crossed(400, features=8)
    known = Dataset("known", apart.features + 6 * apart.labels[:, None].astype(np.float32), apart.labels, 2)
    assert named(known, Teachers(4, 2)) == 1.0
    assert tried == [tried[0], 2 * tried[0]]  # twice as many gain nothing
    tried.clear()
    named(data, Teachers(4, 2, components=7))
    assert tried == [7]

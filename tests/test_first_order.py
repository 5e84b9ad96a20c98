"""First-order criteria: gradients of the model's own training records, and of no other; and the shares of ERK."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrizations

from small_study import table, write_data
from toy import CLASSES, FEATURES, blobs, ensemble_of, same_bytes, split_of
from wemem import PruningEngine, api
from wemem.config.parse import parse_study
from wemem.data.split import Role
from wemem.defenses import make_defense
from wemem.errors import InputError
from wemem.pruning import Erk, Magnitude, Pruning, Schedule, Taylor, iterate, make_criterion
from wemem.pruning.gradients import gradient_sizes, weighed
from wemem.training import Ensemble, Recipe

DATA = blobs()
SPLIT = split_of(DATA, members=2)
SHORT = Recipe(epochs=1, patience=None, batch_size=16)
EXAMPLE = torch.from_numpy(DATA.features[:2])
NEEDS = pytest.mark.skipif(importlib.util.find_spec("torch_pruning") is None, reason="needs the extra structured")


def gradients_of(ensemble, data=DATA, split=SPLIT, batch_size=1000):
    return gradient_sizes(ensemble, data, split, seeds=[1, 2], batch_size=batch_size)


def test_gradients_of_one_batch_are_those_of_a_plain_backward_pass():
    ensemble = ensemble_of(DATA, members=2, dropout=0.5)
    found = gradients_of(ensemble)
    for k in range(2):
        module, rows = ensemble.module(k), SPLIT.records(k, Role.TRAIN)
        cross_entropy(module(torch.from_numpy(DATA.features[rows])), torch.from_numpy(DATA.labels[rows])).backward()
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None
            torch.testing.assert_close(found[name][k], parameter.grad.abs(), rtol=1e-4, atol=1e-6)


def test_gradients_of_batches_are_their_root_mean_square_by_hand():
    """A linear model at zero: logits are 0, so that the gradient of a row of weights is mean((1/C - [y = c]) x)."""
    linear = Ensemble.from_modules([nn.Linear(FEATURES, CLASSES)] * 2)
    linear = replace(linear, parameters={name: torch.zeros_like(t) for name, t in linear.parameters.items()})
    found = gradients_of(linear, batch_size=1000)["weight"]
    one = gradients_of(linear, batch_size=25)["weight"]  # two batches of 25 records
    for k in range(2):
        rows = SPLIT.records(k, Role.TRAIN)
        errors = 1 / CLASSES - np.eye(CLASSES)[DATA.labels[rows]]
        per_record = errors[:, :, None] * DATA.features[rows][:, None]
        np.testing.assert_allclose(found[k], np.abs(per_record.mean(0)), atol=1e-6)
        assert (one[k] >= found[k] - 1e-6).all()  # a root mean square is at least the size of the mean


def test_no_record_but_a_models_own_training_records_has_an_effect():
    ensemble, features = ensemble_of(DATA, members=2), DATA.features.copy()
    others = np.flatnonzero((SPLIT.roles != Role.TRAIN).all(0))
    features[others] += 100
    changed = replace(DATA, features=features)
    before, after = gradients_of(ensemble), gradients_of(ensemble, changed)
    assert all(torch.equal(before[name], after[name]) for name in before)
    own = np.setdiff1d(SPLIT.records(0, Role.TRAIN), SPLIT.records(1, Role.TRAIN))
    features[own[0]] += 100
    after = gradients_of(ensemble, replace(DATA, features=features))
    assert not torch.equal(before["1.weight"][0], after["1.weight"][0])
    assert torch.equal(before["1.weight"][1], after["1.weight"][1])


def test_equal_gradients_prune_as_magnitude_does():
    ensemble = ensemble_of(DATA, members=2)
    ones = {name: torch.full_like(t, 0.5) for name, t in ensemble.parameters.items()}
    taylor, magnitude = Pruning(criterion=Taylor()), Pruning(criterion=Magnitude())
    assert same_bytes(taylor.prune(ensemble, 0.5, EXAMPLE, ones), magnitude.prune(ensemble, 0.5, EXAMPLE))


def test_weights_of_a_feature_that_never_varies_go_first_however_large_they_are():
    features = DATA.features.copy()
    features[:, 2] = 0
    data = replace(DATA, features=features)
    ensemble = ensemble_of(data, members=2)
    weights = ensemble.parameters["1.weight"].clone()
    weights[:, :, 2] = 50.0
    ensemble = replace(ensemble, parameters={**ensemble.parameters, "1.weight": weights})
    pruned = Pruning(criterion=Taylor()).prune(ensemble, 1 / FEATURES, EXAMPLE, gradients_of(ensemble, data))
    assert not pruned.masks["1.weight"][:, :, 2].any()
    assert Pruning().prune(ensemble, 1 / FEATURES, EXAMPLE).masks["1.weight"][:, :, 2].all()


@NEEDS
def test_filters_by_taylor_are_the_sum_of_squared_products_by_hand():
    ensemble = ensemble_of(DATA, members=2)
    found = gradients_of(ensemble, batch_size=16)
    pruned = Pruning(criterion=make_criterion("taylor_filter")).prune(ensemble, 0.5, EXAMPLE, found)
    values = (ensemble.parameters["1.weight"] * found["1.weight"]).double().square().sum(2)
    for k in range(2):
        assert (~pruned.channels["1"][k]).nonzero().flatten().tolist() == sorted(values[k].argsort()[:8].tolist())
    torch.testing.assert_close(
        pruned.parameters["1.weight"], ensemble.parameters["1.weight"][pruned.channels["1"]].view(2, 8, FEATURES)
    )


@pytest.mark.parametrize("method", ["taylor", pytest.param("taylor_filter", marks=NEEDS)])
@pytest.mark.parametrize("rewind", ["none", "initial"])
def test_first_order_criteria_reach_the_target_over_rounds_with_and_without_rewinding(method, rewind):
    criterion, start = make_criterion(method), ensemble_of(DATA, members=2)
    pruning = Pruning(Schedule(0.5, 3), recipe=SHORT, rewind=rewind, criterion=criterion)
    scores = [np.random.default_rng(k).random(len(DATA)) for k in range(2)]
    swmr, initial = make_defense("swmr"), ensemble_of(DATA, members=2)
    *_, last = iterate(start, DATA, SPLIT, pruning, swmr, seeds=[1, 2], scores=scores, initial=initial)
    assert last.sparsity == pytest.approx(0.5, abs=0.01)


def test_a_guarantee_that_does_not_cover_the_criterion_is_refused_before_training(tmp_path):
    pruning = Pruning(Schedule(0.5, 2), recipe=SHORT, criterion=Taylor())
    with pytest.raises(InputError, match=r"expected a criterion that reads no training record beside dpsgd.*epsilon"):
        next(iterate(ensemble_of(DATA), DATA, split_of(DATA), pruning, make_defense("dpsgd"), seeds=[1, 2, 3]))
    study = table(write_data(tmp_path), defenses=["dpsgd"], pruning={"method": "taylor"}, attacks=["confidence"])
    with pytest.raises(InputError, match="reads no training record"):
        api.run(parse_study(study), tmp_path / "out")


def test_a_loop_without_gradients_is_refused_rather_than_pruned_by_magnitude():
    pruning = Pruning(criterion=Taylor())
    with pytest.raises(InputError, match=r"expected gradients on training records for Taylor\(\), got none"):
        pruning.prune(ensemble_of(DATA), 0.5, EXAMPLE)
    model = ensemble_of(DATA).module(0)
    assert PruningEngine("undefended", pruning=pruning).validate(model)[0].startswith("Taylor() reads gradients")


def test_weights_that_are_computed_are_refused_by_name():
    module = nn.Sequential(parametrizations.weight_norm(nn.Linear(FEATURES, 4)), nn.Linear(4, CLASSES))
    ensemble = Ensemble.from_modules([module])
    with pytest.raises(InputError, match="expected a model with plain weights"):
        weighed(ensemble, {})


def test_shares_of_erk_by_hand():
    # densities in proportion to 20/96 and 11/24 (12 x 8, 8 x 3), e such that 60 of 120 weights stay
    scale = 60 / (20 + 11)
    assert Erk.densities([(12, 8), (8, 3)], 0.5) == pytest.approx([scale * 20 / 96, scale * 11 / 24])
    assert Erk.densities([(12, 8), (8, 3)], 0.0) == [1.0, 1.0]
    # a kernel counts with its height and width
    assert Erk.densities([(4, 2, 3, 3), (90, 90)], 0.5)[0] == pytest.approx(min(1, (4086 / 192) * 12 / 72))


SHAPES = st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=4).map(tuple), min_size=1, max_size=5)


@given(SHAPES, st.floats(0, 0.99), st.floats(0, 0.99))
def test_shares_of_erk_have_the_target_together_and_only_fall(shapes, one, other):
    least, most = sorted((one, other))
    sizes = [int(np.prod(shape)) for shape in shapes]
    denser, sparser = Erk.densities(shapes, least), Erk.densities(shapes, most)
    assert np.dot(denser, sizes) == pytest.approx((1 - least) * sum(sizes))
    assert all(0 <= low <= high + 1e-9 <= 1 + 2e-9 for low, high in zip(sparser, denser, strict=True))

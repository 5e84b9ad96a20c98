"""Criteria, one table: each reaches its sparsity, loses for good, keeps the classifier, and is known by its table."""

import importlib.util
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import wemem.pruning
from toy import CLASSES, FEATURES, blobs, same_bytes, split_of
from wemem.config.parse import parse_study
from wemem.defenses import Undefended
from wemem.errors import InputError
from wemem.models.transformer import Block
from wemem.pruning import (
    CRITERIA,
    LayerChoice,
    Magnitude,
    NOfM,
    Pruning,
    Schedule,
    WeightCriterion,
    criterion_settings,
    iterate,
    make_criterion,
    pruned_share,
)
from wemem.pruning.masks import weight_masks
from wemem.store.fingerprint import spelled
from wemem.training import Ensemble, Recipe

DATA = blobs()
EXAMPLE = torch.from_numpy(DATA.features[:2])
SHORT = Recipe(epochs=1, patience=None, batch_size=16)
NEEDS = pytest.mark.skipif(importlib.util.find_spec("torch_pruning") is None, reason="needs the extra structured")


@dataclass(frozen=True)
class Power(WeightCriterion):
    """A user's own: any power orders as magnitude does."""

    power: float = 2.0

    def importance(self, weights):
        return weights.abs().pow(self.power)


OWN = {"kind": f"{__name__}:Power", "power": 3.0}
METHODS = [
    *(pytest.param(name, marks=[NEEDS] if cls.structured else []) for name, cls in CRITERIA.items()),
    pytest.param(OWN, id="own"),
]


def network():
    return nn.Sequential(
        nn.Linear(FEATURES, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(),
        nn.Linear(8, CLASSES),
    )  # fmt: skip


class Attending(nn.Module):
    """One block of four heads and twelve neurons over three tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.block = nn.Linear(FEATURES // 3, 8), Block(8, 4, 12, 0.0)
        self.classifier = nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.classifier(self.block(self.embed(x.unflatten(1, (3, -1)))).mean(1))


def ensemble(method: Any = "magnitude", members=2):
    modules = []
    for seed in range(members):
        torch.manual_seed(seed)
        modules.append(Attending() if "heads" in str(method) else network())
        for layer in modules[-1].modules():
            if isinstance(layer, nn.BatchNorm1d):
                nn.init.uniform_(layer.weight)
    return Ensemble.from_modules(modules)


def pruned(method: Any, sparsity: float, start: Ensemble | None = None) -> Ensemble:
    criterion = make_criterion(method)
    start = ensemble(method) if start is None else start
    return criterion.prune(start, sparsity, EXAMPLE, LayerChoice(), criterion.scopes[0])


def kept(of: Ensemble) -> dict[str, torch.Tensor]:
    return {**of.masks, **of.channels}


@pytest.mark.parametrize("method", METHODS)
def test_no_sparsity_loses_nothing(method):
    assert pruned_share(pruned(method, 0.0)) == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sparsity", [0.25, 0.5])
def test_a_sparsity_is_reached_to_the_weight_or_channel_by_every_model(method, sparsity):
    result = pruned(method, sparsity)
    for k in range(2):
        lost = sum(int((~mask[k]).sum()) for mask in kept(result).values())
        assert lost == round(sparsity * sum(mask[k].numel() for mask in kept(result).values()))


@pytest.mark.parametrize("method", METHODS)
def test_what_is_lost_stays_lost_whatever_the_weights_become(method):
    first = pruned(method, 0.25)
    rng = np.random.default_rng(0)
    moved = {n: torch.from_numpy(rng.normal(0, 1, t.shape).astype(np.float32)) for n, t in first.parameters.items()}
    second = pruned(method, 0.5, replace(first, parameters=moved))
    assert all((kept(second)[name] <= kept(first)[name]).all() for name in kept(first))


@pytest.mark.parametrize("method", METHODS)
def test_the_classifier_keeps_all_its_outputs_and_the_model_runs(method):
    result = pruned(method, 0.5)
    assert not {"6", "6.weight", "classifier", "classifier.weight"} & set(kept(result))
    assert result.module(0)(EXAMPLE).shape == (2, CLASSES)


@pytest.mark.parametrize("method", METHODS)
def test_rewinding_keeps_what_was_kept_with_the_earlier_weights(method):
    start, result = ensemble(method), pruned(method, 0.5)
    criterion = make_criterion(method)
    assert same_bytes(criterion.restrict(start, result, EXAMPLE, LayerChoice()), result)


@pytest.mark.parametrize("method", METHODS)
def test_a_criterion_comes_back_from_its_table_and_its_repr(method):
    criterion = make_criterion(method)
    assert make_criterion(criterion_settings(criterion)) == criterion
    assert eval(repr(criterion), {**vars(wemem.pruning), "Power": Power}) == criterion  # noqa: S307


@pytest.mark.parametrize("method", METHODS)
def test_a_study_names_a_criterion_and_its_fingerprint_tells_it_from_all_others(method):
    criterion = make_criterion(method)
    table = {"method": method, "scope": criterion.scopes[0]}
    study = parse_study({"data": {"source": "digits"}, "attacks": "threshold", "pruning": table})
    value = study.pruning.to(0.6, SHORT)
    assert value.criterion == criterion
    assert parse_study(study.table).pruning == study.pruning
    others = [
        replace(value, criterion=cls(), scope=cls.scopes[0]) for cls in CRITERIA.values() if cls is not type(criterion)
    ]
    assert all(spelled(other) != spelled(value) for other in others)


@pytest.mark.parametrize("method", METHODS)
def test_iterative_pruning_ends_at_the_target_with_zeros_or_fewer_channels(method):
    criterion = make_criterion(method)
    value = Pruning(Schedule(0.5, rounds=3), criterion.scopes[0], SHORT, criterion=criterion)
    split = split_of(DATA, members=2)
    *_, last = iterate(ensemble(method), DATA, split, value, Undefended(), seeds=[1, 2])
    assert last.sparsity == pytest.approx(0.5, abs=0.02)
    state = {**last.ensemble.parameters, **last.ensemble.buffers}
    assert all((state[name][~mask] == 0).all() for name, mask in last.ensemble.masks.items())
    assert bool(last.ensemble.channels) == criterion.structured


def test_a_fingerprint_holds_the_registered_name_the_settings_and_the_choice_of_layers():
    value = spelled(Pruning(criterion=NOfM(1, 4), layers=LayerChoice(classifier="6")))
    assert value["criterion"] == {"kind": "n_of_m", "n": 1, "m": 4}
    assert value["layers"]["classifier"] == "6"


def test_a_power_prunes_as_magnitude_does():
    assert same_bytes(pruned(OWN, 0.5), pruned("magnitude", 0.5))


def test_two_of_four_leaves_two_of_every_four_consecutive_weights():
    weights = pruned("n_of_m", 0.5).masks["3.weight"]  # 8 rows of 12
    assert (weights.unflatten(2, (3, 4)).sum(3) == 2).all()


def test_one_of_four_by_hand():
    values = torch.tensor([[[1.0, -5.0, 2.0, 3.0, 9.0, 8.0, 7.0, 6.0]]])
    ensemble = Ensemble.from_modules([nn.Sequential(nn.Linear(8, 1), nn.Linear(1, 2))])
    ensemble = replace(ensemble, parameters={**ensemble.parameters, "0.weight": values})
    masks = weight_masks(ensemble, 0.75, NOfM(1, 4).importance, torch.zeros(1, 8))
    assert masks["0.weight"][0, 0].nonzero().flatten().tolist() == [1, 4]


def test_lamp_scores_by_hand_and_never_empties_a_layer():
    squares = np.array([1.0, 9.0, 4.0])
    expected = [squares[i] / squares[squares >= squares[i]].sum() for i in range(3)]
    scores = make_criterion("lamp").importance(torch.tensor([[[1.0, -3.0, 2.0]]]))  # type: ignore[attr-defined]
    np.testing.assert_allclose(scores[0, 0], expected, rtol=1e-6)
    result = pruned("lamp", 0.95)
    assert all(mask.flatten(1).any(1).all() for mask in result.masks.values())


@NEEDS
def test_batch_norm_scale_removes_the_channels_of_the_smallest_scale():
    start = ensemble(members=1)
    gone = ~pruned("bn_scale", 0.5, start).channels["0"][0]
    assert gone.nonzero().flatten().tolist() == sorted(start.parameters["1.weight"][0].abs().argsort()[:6].tolist())
    plain = Ensemble.from_modules([nn.Sequential(nn.Linear(FEATURES, 4), nn.Linear(4, CLASSES))])
    with pytest.raises(InputError, match="expected a BatchNorm after the channels of '0', got none"):
        pruned("bn_scale", 0.5, plain)


@pytest.mark.parametrize(("method", "message"), [
    ("magnitud", "expected a method among .*did you mean 'magnitude'"),
    ({"n": 2}, "expected a method by its name or as a table with a kind"),
    ({"kind": "n_of_m", "k": 2}, "method 'n_of_m' expected keys among n, m, got 'k'"),
    ({"kind": "n_of_m", "n": 4, "m": 4}, "n must be at least 1 and less than m"),
    ("math:floor", "expected 'math:floor' to name a frozen dataclass that is a wemem.pruning.Criterion"),
    ("wemem.pruning:WeightCriterion", "expected 'wemem.pruning:WeightCriterion' to"),
])  # fmt: skip
def test_what_is_no_criterion_is_refused_in_one_line(method, message):
    with pytest.raises(InputError, match=message) as caught:
        make_criterion(method)
    assert "\n" not in str(caught.value)


def test_magnitude_is_the_default():
    assert Pruning().criterion == Magnitude() == make_criterion("magnitude")

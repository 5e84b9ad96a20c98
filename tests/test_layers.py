"""Layers that pruning finds: recurrent, attention and transposed ones, and a classifier wherever it is defined."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from toy import CLASSES, blobs, split_of
from wemem.defenses import Undefended
from wemem.errors import InputError
from wemem.pruning import LayerChoice, Pruning, Schedule, iterate, prunable_weights
from wemem.pruning.layers import trace_layers
from wemem.training import Ensemble, Recipe

STEPS, WIDTH = 3, 4
DATA = blobs(shape=(STEPS, WIDTH))
EXAMPLE = torch.from_numpy(DATA.features[:2])
SHORT = Recipe(epochs=1, patience=None, batch_size=16)


class Recurrent(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.rnn = getattr(nn, kind)(WIDTH, 8, batch_first=True)
        self.out = nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.out(self.rnn(x)[0][:, -1])


class Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.GRUCell(WIDTH, 8), nn.Linear(8, CLASSES)

    def forward(self, x):
        state = x.new_zeros(len(x), 8)
        for step in range(STEPS):
            state = self.cell(x[:, step], state)
        return self.out(state)


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inp = nn.Linear(WIDTH, 8)
        self.enc = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
        self.out = nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.out(self.enc(self.inp(x)).mean(1))


class Upwards(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.conv = nn.ConvTranspose1d(STEPS, 5, 2), nn.Conv1d(5, 4, 2)
        self.out = nn.Linear(16, CLASSES)

    def forward(self, x):
        return self.out(torch.relu(self.conv(torch.relu(self.up(x)))).flatten(1))


class HeadFirst(nn.Module):
    """The classifier is defined first, and a layer that is never called last."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, CLASSES)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(STEPS * WIDTH, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU())
        self.unused = nn.Linear(6, CLASSES)

    def forward(self, x):
        return self.head(self.body(x))


class TwoHeads(nn.Module):
    """Two classifiers whose outputs are added, and a gate that multiplies them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(STEPS * WIDTH, 6)
        self.one, self.other = nn.Linear(6, CLASSES), nn.Linear(6, CLASSES)

    def forward(self, x):
        x = torch.relu(self.body(x.flatten(1)))
        return self.one(x) + self.other(x)


class Language(nn.Module):
    """An embedding whose table is the classifier's too."""

    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        self.table, self.body = nn.Embedding(CLASSES, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, CLASSES, bias=False)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, x):
        return self.head(torch.relu(self.body(self.table(x.long()[:, 0].clamp(0, 2)).mean(1))))


def normed(norm) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), norm(nn.Linear(STEPS * WIDTH, 8)), nn.ReLU(), nn.Linear(8, CLASSES))


def prunable(module: nn.Module, **choice) -> list[str]:
    return prunable_weights(module, EXAMPLE, LayerChoice(**choice))


FAMILIES = {
    "rnn": (lambda: Recurrent("RNN"), ["rnn.weight_ih_l0", "rnn.weight_hh_l0"]),
    "lstm": (lambda: Recurrent("LSTM"), ["rnn.weight_ih_l0", "rnn.weight_hh_l0"]),
    "gru": (lambda: Recurrent("GRU"), ["rnn.weight_ih_l0", "rnn.weight_hh_l0"]),
    "cell": (Cell, ["cell.weight_ih", "cell.weight_hh"]),
    "transformer": (
        Transformer,
        ["inp.weight", "enc.self_attn.in_proj_weight", "enc.self_attn.out_proj.weight", "enc.linear1.weight",
         "enc.linear2.weight"],
    ),
    "transposed": (Upwards, ["up.weight", "conv.weight"]),
    "head_first": (HeadFirst, ["body.1.weight", "body.3.weight"]),
    "two_heads": (TwoHeads, ["body.weight"]),
    "weight_norm": (
        lambda: normed(parametrizations.weight_norm), ["1.parametrizations.weight.original1"],
    ),
    "spectral_norm": (
        lambda: normed(parametrizations.spectral_norm), ["1.parametrizations.weight.original"],
    ),
    "tied": (Language, ["body.weight"]),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_all_weights_but_the_classifier_are_prunable(family):
    make, expected = FAMILIES[family]
    assert prunable(make()) == expected


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("backend", ["auto", "sequential"])
def test_every_family_is_pruned_to_its_sparsity_and_the_layers_compute_with_the_zeros(family, backend):
    make, names = FAMILIES[family]
    ensemble = Ensemble.from_modules([make() for _ in range(2)])
    pruning = Pruning(Schedule(0.5, rounds=2), recipe=SHORT)
    split = split_of(DATA, members=2)
    *_, last = iterate(ensemble, DATA, split, pruning, Undefended(), seeds=[1, 2], backend=backend)
    assert set(last.ensemble.masks) == set(names)
    module = last.ensemble.module(1)
    for name in names:
        kept = last.ensemble.masks[name][1]
        assert int((~kept).sum()) == round(0.5 * kept.numel())
        layer, _, rest = name.partition(".parametrizations.")
        weight = module.get_submodule(layer).weight if rest else module.get_parameter(name)
        assert isinstance(weight, Tensor)
        assert torch.equal(weight == 0, ~kept)


def test_weights_under_weight_norm_go_by_what_the_layer_computes_with():
    module = normed(parametrizations.weight_norm)
    with torch.no_grad():  # rows of very different lengths
        module.get_parameter("1.parametrizations.weight.original0").copy_(torch.arange(1.0, 9.0)[:, None] ** 4)
    ensemble = Ensemble.from_modules([module])
    mask = Pruning(scope="layer").prune(ensemble, 0.5, EXAMPLE).masks["1.parametrizations.weight.original1"][0]
    effective = ensemble.module(0).get_submodule("1").weight
    assert isinstance(effective, Tensor)
    assert effective.detach().abs()[mask].min() >= effective.detach().abs()[~mask].max()


def test_embeddings_are_pruned_on_request_and_never_as_the_classifier():
    assert prunable(Language(tied=False)) == ["body.weight"]
    assert prunable(Language(tied=False), embeddings=True) == ["table.weight", "body.weight"]
    assert prunable(Language(), embeddings=True) == ["body.weight"]


def test_classifier_and_ignored_layers_are_named_with_their_children():
    assert prunable(HeadFirst(), classifier="body.3") == ["head.weight", "body.1.weight"]
    assert prunable(HeadFirst(), ignored_layers=("body.1",)) == ["body.3.weight"]
    assert prunable(Transformer(), ignored_layers=("enc",)) == ["inp.weight"]


def test_a_trace_lists_the_layers_that_run_in_the_order_of_their_definition():
    traced = trace_layers(HeadFirst(), EXAMPLE)
    assert traced.ran == ("head", "body.1", "body.3")
    assert traced.outputs == {"head"}


@pytest.mark.parametrize(("call", "message"), [
    (lambda: prunable(HeadFirst(), classifier="haed"), "expected names of the model's layers in .*did you mean 'head'"),
    (lambda: prunable(HeadFirst(), ignored_layers=("body",)), "got none besides the classifier"),
    (lambda: prunable(normed(parametrizations.orthogonal)), "'weight' of layer '1' computed by _Orthogonal; add '1'"),
    (lambda: prunable(nn.Linear(99, 2)), r"the model fails on input of shape \(2, 3, 4\)"),
])  # fmt: skip
def test_what_cannot_be_pruned_is_refused_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)

"""Classifiers as people bring them: any usual output, wrappers taken off, and one line for what cannot be trained."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from toy import CLASSES, FEATURES, blobs, same_bytes, split_of
from wemem.data.dataset import Dataset
from wemem.errors import InputError
from wemem.exporting.checkpoint import load_pruned, write_weights
from wemem.exporting.weight_files import read_weights
from wemem.models import CustomModel, make_model
from wemem.models.outputs import require_logits
from wemem.training import Ensemble, Recipe, fit

DATA = blobs()
EXAMPLE = torch.from_numpy(DATA.features[:2])
SHORT = Recipe(epochs=2, patience=None, batch_size=16)


class Base(nn.Module):
    """A classifier whose subclasses wrap its logits."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(FEATURES, 8), nn.Linear(8, classes)

    def logits(self, x):
        return self.head(torch.relu(self.body(x)))

    def forward(self, x):
        return self.logits(x)


class InTuple(Base):
    def forward(self, x):
        return self.logits(x), self.body(x)


class TupleInTraining(Base):
    def forward(self, x):
        return (self.logits(x), self.body(x)) if self.training else self.logits(x)


class InMapping(Base):
    def forward(self, x):
        return {"loss": None, "logits": self.logits(x)}


class ModelOutput(OrderedDict[str, Any]):
    def __getattr__(self, name):
        return self[name]


class InModelOutput(Base):
    def forward(self, x):
        return ModelOutput(loss=None, logits=self.logits(x))


class Named(NamedTuple):
    aux: Tensor
    logits: Tensor


class InNamedTuple(Base):
    def forward(self, x):
        return Named(self.body(x), self.logits(x))


class Elsewhere(Base):
    def forward(self, x):
        return {"scores": self.logits(x), "features": self.body(x)}


class Last(Base):
    def forward(self, x):
        return self.body(x), self.logits(x)


class Tied(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.first, self.second = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, FEATURES)
        self.second.weight = self.first.weight
        self.head = nn.Linear(FEATURES, classes)

    def forward(self, x):
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))))


class Images(Base):
    def forward(self, x):
        assert x.dim() == 4, "want images"
        return self.logits(x.flatten(1))


def make(input_shape: tuple[int, ...], classes: int, kind: str = "Base") -> nn.Module:
    made: nn.Module = globals()[kind](classes)
    return made


def lazy(input_shape, classes):
    return nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(classes))


def in_data_parallel(input_shape, classes):
    return nn.DataParallel(make(input_shape, classes))


def compiled(input_shape, classes):
    return torch.compile(make(input_shape, classes))


def one_number(input_shape, classes, flat=False):
    layers = [nn.Linear(FEATURES, 8), nn.ReLU(), nn.Linear(8, 1)]
    return nn.Sequential(*layers, *([nn.Flatten(0)] if flat else []))


def scripted(input_shape, classes):
    return torch.jit.script(nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), nn.Linear(8, classes)))


def old_weight_norm(input_shape, classes):
    with pytest.warns(FutureWarning):
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(FEATURES, 8)), nn.Linear(8, classes))


def half(input_shape, classes):
    return make(input_shape, classes).half()


def missing(input_shape, classes):
    raise ValueError("no such pretrained model")


def model_of(factory: Callable[..., Any], **settings: Any) -> CustomModel:
    made = make_model(f"{__name__}:{factory.__name__}", settings)
    assert isinstance(made, CustomModel)
    return made


def trained(model: CustomModel, backend: str = "auto") -> Ensemble:
    ensemble = Ensemble.initialize(model, DATA.input_shape, DATA.classes, seeds=[0, 1])
    return fit(ensemble, DATA, split_of(DATA, members=2), SHORT, seeds=[3, 4], backend=backend).ensemble


@pytest.mark.parametrize("backend", ["vmapped", "sequential"])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("InTuple", {}),
        ("TupleInTraining", {}),
        ("InMapping", {}),
        ("InModelOutput", {}),
        ("InNamedTuple", {}),
        ("Elsewhere", {"output": "scores"}),
        ("Last", {"output": 1}),
    ],
)
def test_logits_in_any_usual_output_train_as_plain_logits_do(kind, settings, backend):
    assert same_bytes(trained(model_of(make, kind=kind, **settings), backend), trained(model_of(make), backend))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("factory", [in_data_parallel, compiled])
def test_a_wrapped_model_trains_as_the_model_inside(factory):
    assert same_bytes(trained(model_of(factory)), trained(model_of(make)))


@pytest.mark.parametrize("flat", [False, True])
def test_one_number_for_two_classes_is_the_log_odds_of_class_1(flat):
    module = model_of(one_number, flat=flat).build((FEATURES,), 2).eval()
    plain = one_number((FEATURES,), 2)
    plain.load_state_dict(module.state_dict())
    z = plain(EXAMPLE).flatten()
    torch.testing.assert_close(module(EXAMPLE).softmax(1)[:, 1], z.sigmoid())


@pytest.mark.parametrize("backend", ["vmapped", "sequential"])
def test_one_number_of_a_plain_sequence_trains_as_the_log_odds(backend):
    rng = np.random.default_rng(0)
    features = rng.normal(0, 1, (120, FEATURES)).astype(np.float32)
    data = Dataset("signs", features, (features[:, 0] > 0).astype(np.int64), 2)
    ensemble = Ensemble.initialize(model_of(one_number), data.input_shape, 2, seeds=[0, 1])
    recipe = Recipe(epochs=60, batch_size=16, learning_rate=0.01)
    fitted = fit(ensemble, data, split_of(data, members=2), recipe, seeds=[3, 4], backend=backend).ensemble
    assert (fitted.logits(features).argmax(-1) == data.labels).mean() > 0.75


def test_lazy_layers_are_sized_and_drawn_from_the_seed():
    first, again = (Ensemble.initialize(model_of(lazy), (FEATURES,), CLASSES, seeds=[0, 1]) for _ in range(2))
    assert same_bytes(first, again)
    assert not torch.equal(first.parameters["0.weight"][0], first.parameters["0.weight"][1])
    assert trained(model_of(lazy)).parameters["2.weight"].shape == (2, CLASSES, 8)


def test_tied_weights_are_one_tensor_that_comes_back_from_a_file(tmp_path):
    ensemble = trained(model_of(make, kind="Tied"))
    assert "second.weight" not in ensemble.parameters
    write_weights(tmp_path / "w.safetensors", ensemble.state(0))
    state = read_weights(tmp_path / "w.safetensors")
    assert torch.equal(state["first.weight"], state["second.weight"])
    loaded = load_pruned(Tied(CLASSES), tmp_path / "w.safetensors")
    assert torch.equal(loaded(EXAMPLE), ensemble.module(0)(EXAMPLE))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize(("model", "message"), [
    (model_of(scripted), "expected a plain module from .*, got a scripted one"),
    (model_of(old_weight_norm), "under the deprecated .*; use the one in torch.nn.utils.parametrizations"),
    (model_of(half), r"expected a float32 model from .*, got float16; return module.float\(\)"),
    (model_of(missing), "expected .* to work, got ValueError: no such pretrained model"),
    (model_of(make, kind="Elsewhere"), r"got dict with entries 'scores', 'features'; name .*\[model\] output"),
    (model_of(make, kind="InMapping", output="scores"), "expected 'scores' in the model's output, got dict with"),
    (model_of(make, kind="InTuple", output=7), "expected 7 in the model's output, got tuple of 2 entries"),
    (model_of(make, kind="Images"), r"fails on float32 input of shape \(2, 6\): AssertionError: want images; check"),
    (model_of(one_number), r"to logits \(2, 3\), got \(2, 1\); give it one output for each class"),
])  # fmt: skip
def test_what_cannot_be_trained_is_refused_in_one_line(model, message):
    with pytest.raises(InputError, match=message) as caught:
        require_logits(Ensemble.initialize(model, DATA.input_shape, CLASSES, [0]).module(0), EXAMPLE, CLASSES)
    assert "\n" not in str(caught.value)


def test_the_output_of_a_factory_is_a_name_or_a_position():
    with pytest.raises(InputError, match="to be the name or position of the logits, got True"):
        model_of(make, output=True)

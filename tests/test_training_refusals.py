"""Training that diverges or cannot be done: one line, before or at the step."""

from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from networks import ADAM, DATA, IMAGES, SEEDS, SGD, UNKNOWN, ConvNet, modules, with_batch_norm
from toy import CLASSES, FEATURES, blobs, ensemble_of, split_of
from wemem.data.split import Role
from wemem.defenses import MemoryRegularizer
from wemem.errors import InputError
from wemem.models import CustomModel, FullyConnected, make_model
from wemem.training import Ensemble, Recipe, fit


@pytest.mark.parametrize(("optimizer", "rate"), [("adam", 1e25), ("sgd", 1e9), ("sgd", 1e30)])
@pytest.mark.parametrize("backend", ["vmapped", "sequential"])
def test_training_that_diverges_is_refused(optimizer, rate, backend):
    recipe = replace(ADAM, optimizer=optimizer, learning_rate=rate)
    with pytest.raises(InputError, match=r"training diverged in epoch \d: .*; lower the learning rate"):
        fit(ensemble_of(DATA), DATA, split_of(DATA), recipe, seeds=SEEDS, backend=backend)


def test_a_last_step_that_diverges_is_refused():
    recipe = replace(SGD, epochs=1, batch_size=50, learning_rate=1e38)
    with pytest.raises(InputError, match="training diverged in epoch 0: the output is not finite"):
        fit(ensemble_of(DATA), DATA, split_of(DATA), recipe, seeds=SEEDS)


def test_models_of_different_architecture_are_refused():
    def fc(*hidden):
        return FullyConnected(hidden=hidden).build((FEATURES,), CLASSES)

    with pytest.raises(InputError, match=r"all models to be built alike, got another '1\.weight' in model 2"):
        Ensemble.from_modules([fc(8), fc(8), fc(9)])
    with pytest.raises(InputError, match=r"all models to be built alike, got another '7\.weight' in model 1"):
        Ensemble.from_modules([fc(8), fc(8, CLASSES)])
    plain = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False))
    with pytest.raises(InputError, match=r"got another '1\.running_mean' in model 1"):
        Ensemble.from_modules([plain, nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))])


@pytest.mark.parametrize(("call", "message"), [
    (lambda: fit(ensemble_of(DATA), DATA, split_of(DATA), ADAM, seeds=[1, 2]), "for 3 models, got 3 and 2"),
    (lambda: fit(ensemble_of(DATA), DATA, split_of(DATA, members=2), ADAM, seeds=SEEDS), "for 3 models, got 2 and 3"),
    (lambda: fit(ensemble_of(DATA), DATA, split_of(blobs(120)), ADAM, seeds=SEEDS), "set's 90 records, got one of 120"),
    (lambda: fit(ensemble_of(IMAGES), DATA, split_of(DATA), ADAM, seeds=SEEDS),
     r"the model fails on float32 input of shape \(2, 6\): .*mat1 and mat2 shapes cannot be .*; check its input size"),
    (lambda: fit(Ensemble.from_modules(modules(ConvNet)), DATA, split_of(DATA), ADAM, seeds=SEEDS), "fails on"),
    (lambda: fit(ensemble_of(replace(DATA, classes=4)), DATA, split_of(DATA), ADAM, seeds=SEEDS),
     r"to map \(2, 6\) to logits \(2, 3\), got \(2, 4\); give it one output for each class"),
    (lambda: fit(Ensemble.from_modules([nn.LSTM(FEATURES, CLASSES)] * 3), DATA, split_of(DATA), ADAM, seeds=SEEDS),
     r"to logits \(2, 3\), got tuple of 2 entries;"),
    (lambda: fit(ensemble_of(DATA), DATA, split_of(DATA), ADAM, seeds=SEEDS, backend="gpu"), "backend must be"),
    (lambda: Ensemble.from_modules([nn.ReLU()]), "a model with trainable parameters, got none; unfreeze some"),
    (lambda: Recipe(epochs=0), "epochs must be at least 1, got 0"),
    (lambda: Recipe(patience=0), "patience must be at least 1, got 0"),
    (lambda: Recipe(learning_rate=float("nan")), "learning_rate must be at least 0, got nan"),
    (lambda: Recipe(optimizer=UNKNOWN), "optimizer must be adam or sgd, got 'rmsprop'"),
    (lambda: FullyConnected(hidden=()), "hidden must be one or more positive widths"),
    (lambda: FullyConnected(dropout=1.0), r"dropout must be in \[0, 1\), got 1.0"),
    (lambda: make_model("cnn", {}), "expected model kind fc, .* or package.module:factory, got 'cnn'"),
    (lambda: make_model("fc", {"hiden": [8]}), "got 'hiden'; did you mean 'hidden'"),
    (lambda: CustomModel("math:pi").build((2,), 2), "expected 'math:pi' to be a function, got 3.14"),
    (lambda: CustomModel("math:floor").build((2,), 2), r"math:floor\(input_shape, classes, \*\*arguments\) to"),
    (lambda: CustomModel("builtins:divmod").build((2,), 2), r"divmod\(input_shape, classes, \*\*arguments\) to work"),
    (lambda: CustomModel("operator:contains").build((2,), 2), "to return a torch.nn.Module, got bool"),
])  # fmt: skip
def test_what_cannot_be_trained_is_refused_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("backend", ["vmapped", "sequential"])
def test_one_risky_record_under_batch_norm_trains(backend):
    scores = [np.where(np.arange(len(DATA)) == split_of(DATA).records(k, Role.TRAIN)[0], 1.0, 0.0) for k in range(3)]
    defense = MemoryRegularizer(threshold=0.5, decay=0.1)
    fitted = fit(
        with_batch_norm(3), DATA, split_of(DATA), ADAM, seeds=SEEDS, defense=defense, scores=scores, backend=backend
    )  # fmt: skip
    assert [history.records_seen for history in fitted.history] == [50 * ADAM.epochs] * 3


def test_steps_on_one_record_under_batch_norm_are_refused_before_the_first():
    with pytest.raises(InputError, match=r"expected at least 2 records for each step .*, got batch_size = 1"):
        fit(with_batch_norm(3), DATA, split_of(DATA), replace(ADAM, batch_size=1), seeds=SEEDS)

"""Compiled training steps against the sequential backend, which they replace."""

import shutil

import pytest
import torch
from torch import nn

from toy import blobs, ensemble_of, largest_difference, same_bytes, split_of
from wemem.config.parse import parse_study
from wemem.errors import InputError
from wemem.models import CustomModel
from wemem.training import Ensemble, Recipe, fit
from wemem.training.compiled import require_compiler
from wemem.training.device import CPU

IMAGES = blobs(48, shape=(1, 4, 4))
#: 20 records in steps of 8, 8 and 4, of which the last one is not compiled.
SGD = Recipe(epochs=2, patience=None, batch_size=8, learning_rate=0.05, optimizer="sgd")
SEEDS = [1, 2, 3]


class Small(nn.Module):
    """Convolution, BatchNorm, ReLU and a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.norm(self.conv(x)).relu().mean((2, 3)))
        return logits


def small(input_shape, classes):
    return Small()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of PyTorch's compiler itself
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_compiled_models_are_those_of_the_sequential_backend():
    start = Ensemble.initialize(CustomModel("test_compiled:small"), IMAGES.input_shape, IMAGES.classes, SEEDS)
    split = split_of(IMAGES, members=3, train=20, dev=8)
    sequential, compiled, again = (
        fit(start, IMAGES, split, SGD, seeds=SEEDS, backend=backend)
        for backend in ("sequential", "compiled", "compiled")
    )
    assert compiled.choice.backend == "compiled"
    assert largest_difference(sequential.ensemble, compiled.ensemble) < 1e-4
    assert not same_bytes(start, compiled.ensemble)
    assert same_bytes(compiled.ensemble, again.ensemble)


def test_without_a_compiler_the_request_is_refused_before_training(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    data = blobs()
    with pytest.raises(InputError, match="expected a C\\+\\+ compiler, got none named 'no-such-compiler'; install one"):
        fit(ensemble_of(data), data, split_of(data), SGD, seeds=SEEDS, backend="compiled")


def test_other_devices_are_refused():
    with pytest.raises(InputError, match="'compiled' expected the CPU, got cuda"):
        require_compiler(torch.device("cuda", 0))
    if shutil.which("g++") is not None:
        require_compiler(CPU)


def test_a_study_can_request_it_and_misspelt_backends_are_refused():
    assert parse_study({"data": {"source": "digits"}, "backend": "compiled"}).backend == "compiled"
    with pytest.raises(InputError, match="backend must be one of auto, vmapped, sequential, compiled, got 'compile'"):
        parse_study({"data": {"source": "digits"}, "backend": "compile"})

"""Token ids from a file to the results, with a model that takes nothing but whole numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from small_study import table
from wemem import api
from wemem.config.parse import parse_study
from wemem.data.dataset import Dataset
from wemem.data.loaders.arrays import dataset_of
from wemem.exporting.multiplications import multiplications
from wemem.models import FullyConnected, make_model
from wemem.notes import shown
from wemem.pipeline.loading import suited_to

TOKENS, LENGTH = 20, 6
RNG = np.random.default_rng(0)
LABELS = np.arange(180) % 3
IDS = (RNG.integers(0, 5, (180, LENGTH)) + 5 * LABELS[:, None]).astype(np.int64)


def embedding(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Sequential(nn.Embedding(TOKENS, 4), linear((4 * input_shape[0],), classes))


def linear(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0], 8), nn.ReLU(), nn.Linear(8, classes))


def test_a_model_gets_whole_numbers_only_if_it_takes_them():
    data = dataset_of("tokens", IDS, LABELS)
    assert suited_to(make_model("test_tokens:embedding", {}), data) is data
    floats = Dataset.from_arrays("tokens", IDS, LABELS).fingerprint
    for model in (make_model("test_tokens:linear", {}), FullyConnected((8,))):
        assert suited_to(model, data).fingerprint == floats


def test_trying_a_model_draws_nothing_from_the_global_generator():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    suited_to(make_model("test_tokens:embedding", {}), dataset_of("tokens", IDS, LABELS))
    assert torch.equal(torch.rand(3), expected)


def test_multiplications_of_a_model_of_tokens_are_those_of_its_linear_layers():
    assert multiplications(embedding((LENGTH,), 3), (LENGTH,)).all == 8 * 4 * LENGTH + 8 * 3


@pytest.mark.slow
def test_a_study_of_tokens_runs_with_attacks_that_perturb_records(tmp_path: Path):
    np.savez(tmp_path / "tokens.npz", x=IDS, y=LABELS)
    study = table(tmp_path / "tokens.npz", attacks=["confidence", "samia", "label_noise"], defenses=["oosd"])
    results = api.run(parse_study(study | {"model": {"kind": "test_tokens:embedding"}}), tmp_path / "out")
    assert not any("large" in note for note in map(shown, results["notes"]))
    assert {"confidence", "samia", "label_noise"} <= set(results["runs"][0]["attacks"])

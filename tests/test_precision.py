"""Training in bfloat16: as good as in float32, alike in both backends, and float32 wherever it matters."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

import small_images
from toy import blobs, ensemble_of, largest_difference, split_of
from wemem.data.sources import load_dataset
from wemem.data.split import Role
from wemem.defenses import Defense, make_defense
from wemem.errors import InputError
from wemem.models import FullyConnected
from wemem.training import Ensemble, Recipe, accuracy, fit

DATA = blobs()
SEEDS = [11, 12, 13]
ONE_STEP = Recipe(epochs=1, patience=None, batch_size=50, optimizer="sgd", learning_rate=0.1, precision="bf16")
#: bfloat16 keeps 8 bits of a number; a step's change is off by a few units of the last one.
ROUNDING = 4 * 2**-8


@dataclass(frozen=True)
class Watch(Defense):
    """Plain training that notes the type of the logits."""

    @property
    def name(self):
        return "watch"

    def loss(self, batch):
        TYPES.add(batch.logits.dtype)
        return batch.mean(batch.cross_entropy())


TYPES: set[torch.dtype] = set()


def test_bf16_trains_digits_nearly_as_well_as_fp32():
    data = load_dataset("digits")
    split, recipe = split_of(data, members=2, train=600, dev=200), Recipe(epochs=8, learning_rate=1e-2)
    model = FullyConnected((64, 32))
    reached = {}
    for precision in ("fp32", "bf16"):
        start = Ensemble.initialize(model, data.input_shape, data.classes, seeds=[0, 1])
        fitted = fit(start, data, split, replace(recipe, precision=precision), seeds=[0, 1]).ensemble
        logits = fitted.logits(data.features)
        rows = [split.records(k, Role.AUDIT) for k in range(2)]
        reached[precision] = np.mean([accuracy(logits[k, own], data.labels[own]) for k, own in enumerate(rows)])
    assert reached["fp32"] > 0.9
    assert reached["bf16"] > reached["fp32"] - 0.02


@pytest.mark.parametrize("images", [False, True])
def test_both_backends_agree_within_rounding_after_a_step(images):
    data = small_images.images() if images else DATA
    start = (
        Ensemble.initialize(small_images.MODEL, data.input_shape, data.classes, seeds=[0, 1, 2])
        if images
        else ensemble_of(data)
    )
    ends = [
        fit(start, data, split_of(data), ONE_STEP, seeds=SEEDS, backend=backend).ensemble
        for backend in ("vmapped", "sequential")
    ]
    moved = max(largest_difference(end, start) for end in ends)
    assert largest_difference(*ends) < ROUNDING * moved
    exact = fit(start, data, split_of(data), replace(ONE_STEP, precision="fp32"), seeds=SEEDS).ensemble
    assert 0 < largest_difference(ends[0], exact) < 0.1 * moved


@pytest.mark.parametrize("backend", ["vmapped", "sequential"])
def test_losses_weights_and_answers_are_float32(backend):
    TYPES.clear()
    fitted = fit(ensemble_of(DATA), DATA, split_of(DATA), ONE_STEP, seeds=SEEDS, defense=Watch(), backend=backend)
    assert {*TYPES} == {torch.float32}
    assert {t.dtype for t in fitted.ensemble.parameters.values()} == {torch.float32}
    plain = fitted.ensemble.module(1)
    with torch.no_grad():
        answers = plain(torch.from_numpy(DATA.features)).numpy()
    assert np.array_equal(fitted.ensemble.logits(DATA.features)[1], answers)


def test_clipped_gradients_are_not_left_to_rounding():
    with pytest.raises(InputError, match=r"expected a defense that clips no gradients, got dpsgd: .*; use fp32"):
        fit(ensemble_of(DATA), DATA, split_of(DATA), ONE_STEP, seeds=SEEDS, defense=make_defense("dpsgd"))


def test_an_unknown_precision_is_refused():
    unknown: dict[str, str] = {"precision": "fp16"}
    with pytest.raises(
        InputError, match="precision must be fp32, tf32 or bf16, got 'fp16'; fp16 would need loss scaling"
    ):
        Recipe(**unknown)  # type: ignore[arg-type]

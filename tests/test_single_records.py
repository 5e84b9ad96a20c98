"""Steps on a single record never occur, under any defense and however rare a class or a risk is."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from toy import CLASSES, FEATURES, blobs, split_of
from wemem.blocks import DefenseBatchSampler
from wemem.data.batches import Group, plan_steps
from wemem.data.dataset import Dataset
from wemem.data.split import Role
from wemem.defenses import (
    DEFENSES,
    Clipping,
    Distillation,
    Observation,
    OutOfSampleDistillation,
    RoundObservation,
    TrainingRecords,
    make_defense,
)
from wemem.training import Ensemble, Recipe, fit

KINDS = [*DEFENSES, "swmr"]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(
    rare=st.integers(1, 3), common=st.integers(2, 40), batch=st.integers(2, 9), epoch=st.integers(0, 6),
    risky=st.integers(0, 3), seed=st.integers(0, 99),
)  # fmt: skip
def test_no_planned_step_of_any_defense_has_one_record(kind, rare, common, batch, epoch, risky, seed):
    labels = np.array([0] * common + [1] * rare)
    scores = np.linspace(0, 0.1, len(labels))
    scores[:risky] = 0.99
    defense, train = make_defense(kind), np.arange(len(labels))
    seen = (Observation(0.9, 0.6, 0.8, 18),) if defense.capability(RoundObservation) else ()
    records = TrainingRecords(train, labels, scores, seed, seen)
    steps = plan_steps([defense.plan(epoch, (Group(train),), records)], batch, [seed], epoch)
    assert min(step.records.shape[1] for step in steps) >= 2
    if sum(step.weights.sum() for step in steps) >= 2:
        assert min(step.weights.sum() for step in steps) >= 2


@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 1), (2, 1), (1, 3), (2, 2)])
@settings(max_examples=25, deadline=None)
@given(records=st.integers(2, 23), batch=st.integers(2, 9), epoch=st.integers(0, 3))
def test_no_part_of_a_batch_in_a_loop_of_ones_own_has_one_record(world_size, accumulation, records, batch, epoch):
    sizes = []
    for rank in range(world_size):
        sampler = DefenseBatchSampler(
            make_defense("swmr"), np.arange(records) % 2, batch, scores=np.linspace(0, 1, records), rank=rank,
            world_size=world_size, accumulation=accumulation,
        )  # fmt: skip
        sampler.set_epoch(epoch)
        sizes.append([len(part) for part in sampler])
    assert min(min(own) for own in sizes) >= 2
    assert all(own == sizes[0] for own in sizes)  # processes step together


def imbalanced() -> Dataset:
    """A table of which one class has two training records."""
    data = blobs(60)
    labels = np.where(np.arange(60) < 56, np.arange(60) % 2, 2)
    return Dataset("imbalanced", data.features, labels, CLASSES)


@pytest.mark.parametrize("backend", ["vmapped", "sequential"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if not make_defense(kind).capability(Clipping)])
def test_every_defense_trains_a_model_with_batch_norm_on_an_imbalanced_table(kind, backend):
    data, defense = imbalanced(), make_defense(kind)
    if isinstance(defense, OutOfSampleDistillation):
        defense = OutOfSampleDistillation(views=1)
    modules = [nn.Sequential(nn.Linear(FEATURES, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, CLASSES))] * 2
    split = split_of(data, members=2, train=41, dev=10)
    scores = []
    for k in range(2):
        own = np.full(len(data), np.nan)
        own[split.records(k, Role.TRAIN)] = 0.1
        own[split.records(k, Role.TRAIN)[0]] = 0.99  # one risky record
        scores.append(own)
    teachers = None
    if defense.capability(Distillation) is not None:
        shape = (2, defense.inputs_per_record * len(data), CLASSES)
        teachers = np.log(np.full(shape, 1 / CLASSES, np.float32))
    seen = [(Observation(0.9, 0.6, 0.8, 10),)] * 2 if defense.capability(RoundObservation) else None
    recipe = Recipe(epochs=2, patience=None, batch_size=8)  # 41 records: a rest of one
    fitted = fit(
        Ensemble.from_modules(modules), data, split, recipe, seeds=[0, 1], defense=defense, scores=scores,
        teacher_log_probs=teachers, observed=seen, backend=backend,
    )  # fmt: skip
    assert all(torch.isfinite(t).all() for t in fitted.ensemble.parameters.values())

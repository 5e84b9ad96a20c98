"""Views of records: what they are made of, who learns from them, and what is said of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import small_study
from toy import blobs, ensemble_of, largest_difference, split_of
from wemem.config.parse import parse_study
from wemem.data.dataset import Dataset
from wemem.data.split import Role, Split
from wemem.data.teachers import Teachers, held_out
from wemem.data.views import Views
from wemem.defenses import OutOfSampleDistillation, make_defense
from wemem.errors import InputError
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Silent
from wemem.randomness import derive_seed
from wemem.store.store import Store
from wemem.training import Recipe, fit
from wemem.training.views import ViewedRecords

SGD = Recipe(epochs=2, optimizer="sgd", learning_rate=0.05, batch_size=16)


def drawn_for(data, split, views):
    train = [split.records(k, Role.TRAIN) for k in range(split.num_models)]
    return views.draw(train, len(data), data.input_shape)


@pytest.mark.parametrize("shape", [(12,), (2, 4, 3)])
def test_a_view_is_its_record_but_for_the_features_of_one_other_train_record(shape):
    data = blobs(shape=shape)
    split = split_of(data)
    drawn = drawn_for(data, split, Views(2, 0.4))
    shown = ViewedRecords(torch.from_numpy(data.features), drawn)
    for k in (0, 2):
        train = split.records(k, Role.TRAIN)
        for view in (1, 2):
            made = shown.numbered(torch.tensor([k]), torch.from_numpy(view * len(data) + train)[None])[0].numpy()
            donors = drawn.donors[k, view - 1, train]
            assert np.isin(donors, train).all()
            own, taken = made == data.features[train], made == data.features[donors]
            assert (own | taken).all()
            assert 0.3 < (~own).mean() < 0.5


def test_number_of_a_record_is_the_record():
    data = blobs()
    split = split_of(data)
    shown = ViewedRecords(torch.from_numpy(data.features), drawn_for(data, split, Views(3, 0.5)))
    numbers = torch.tensor([[4, 7], [89, 0]])
    assert torch.equal(shown.numbered(torch.tensor([0, 2]), numbers), torch.from_numpy(data.features)[numbers])
    assert torch.equal(shown.of(numbers + 2 * len(data)), numbers)


def test_a_member_s_views_do_not_depend_on_who_else_there_is():
    data = blobs()
    split = split_of(data)
    views, features = Views(2, 0.3), torch.from_numpy(data.features)
    numbers = torch.from_numpy(len(data) + split.records(2, Role.TRAIN))[None]
    together = ViewedRecords(features, drawn_for(data, split, views)).numbered(torch.tensor([2]), numbers)
    alone = ViewedRecords(features, drawn_for(data, split.select([2]), views)).numbered(torch.tensor([0]), numbers)
    assert torch.equal(together, alone)


def taught_at(data, members, passes_per_epoch):
    rng = np.random.default_rng(0)
    return np.log(rng.dirichlet(np.ones(data.classes), (members, passes_per_epoch * len(data)))).astype(np.float32)


def test_an_epoch_shows_every_record_and_every_view_once():
    data = blobs()
    defense = OutOfSampleDistillation(views=2)
    fitted = fit(
        ensemble_of(data),
        data,
        split_of(data),
        SGD,
        seeds=[0, 1, 2],
        defense=defense,
        teacher_log_probs=taught_at(data, 3, 3),
    )
    assert [h.records_seen for h in fitted.history] == [2 * 3 * 50] * 3
    assert defense.passes_per_epoch == 3
    assert make_defense("oosd+rsw", {"views": 2}).passes_per_epoch == 3


def test_what_is_learned_of_a_view_is_what_was_said_of_the_view():
    """With other words about the views alone, another model; with the views' share near 0, they are the records."""
    data = blobs()
    split, teacher_log_probs = split_of(data), taught_at(data, 3, 2)
    start, n = ensemble_of(data, dropout=0.0), len(data)
    other = teacher_log_probs.copy()
    other[:, n:] = np.log(1 / data.classes)

    def after(said, **settings):
        recipe = Recipe(epochs=1, optimizer="sgd", learning_rate=0.05, batch_size=100)
        defense = OutOfSampleDistillation(views=1, **settings)
        return fit(start, data, split, recipe, seeds=[0, 1, 2], defense=defense, teacher_log_probs=said).ensemble

    assert largest_difference(after(teacher_log_probs), after(other)) > 1e-4
    # in one batch of all, records that are shown twice with one target are records shown once
    twice = np.concatenate([teacher_log_probs[:, :n], teacher_log_probs[:, :n]], axis=1)
    recipe = Recipe(epochs=1, optimizer="sgd", learning_rate=0.05, batch_size=50)
    once = fit(
        start,
        data,
        split,
        recipe,
        seeds=[0, 1, 2],
        defense=OutOfSampleDistillation(views=0),
        teacher_log_probs=teacher_log_probs[:, :n],
    )
    assert largest_difference(after(twice, swap=1e-9), once.ensemble) < 1e-5


def test_learning_at_views_is_learning_them_as_records_of_a_larger_data_set():
    data = blobs()
    split, teacher_log_probs, n = split_of(data, members=1), taught_at(data, 1, 3), len(data)
    views = Views(2, 0.4)
    shown = ViewedRecords(torch.from_numpy(data.features), drawn_for(data, split, views))
    every = shown.numbered(torch.tensor([0]), torch.arange(3 * n)[None])[0].numpy()
    larger = Dataset("larger", every, np.tile(data.labels, 3), data.classes)
    roles = np.concatenate([split.roles, *[np.where(split.roles == Role.TRAIN, split.roles, Role.UNUSED)] * 2], axis=1)
    both = Split(roles.astype(np.int8), larger.labels, "subsets")
    start = ensemble_of(data, members=1, dropout=0.0)
    recipe = Recipe(epochs=3, optimizer="sgd", learning_rate=0.05, batch_size=150, keep="last")
    one, other = (
        fit(start, records, own, recipe, seeds=[0], defense=defense, teacher_log_probs=teacher_log_probs).ensemble
        for records, own, defense in (
            (data, split, OutOfSampleDistillation(views=2, swap=0.4)), (larger, both, OutOfSampleDistillation(views=0)),
        )
    )  # fmt: skip
    assert largest_difference(one, other) < 1e-5
    plain = fit(
        start,
        data,
        split,
        recipe,
        seeds=[0],
        defense=OutOfSampleDistillation(views=0),
        teacher_log_probs=teacher_log_probs[:, :n],
    ).ensemble
    assert largest_difference(one, plain) > 1e-3


def test_epochs_take_turns_with_the_views():
    data, n = blobs(), 90
    defense = OutOfSampleDistillation(views=4, views_per_epoch=3)
    assert [defense.inputs_shown(epoch) for epoch in range(3)] == [[0, 1, 2, 3], [0, 4, 1, 2], [0, 3, 4, 1]]
    targets = taught_at(data, 3, 5)
    other = targets.copy()
    other[:, 4 * n :] = np.log(1 / data.classes)  # of the view that the first epoch does not show

    def after(said, epochs):
        recipe = Recipe(epochs=epochs, optimizer="sgd", learning_rate=0.05, batch_size=100, keep="last")
        start, split = ensemble_of(data, dropout=0.0), split_of(data)
        return fit(start, data, split, recipe, seeds=[0, 1, 2], defense=defense, teacher_log_probs=said).ensemble

    assert largest_difference(after(targets, 1), after(other, 1)) == 0
    assert largest_difference(after(targets, 2), after(other, 2)) > 1e-4


def test_a_view_that_no_teacher_answers_is_its_record():
    data, n = blobs(), 90
    targets = taught_at(data, 3, 2)
    unanswered = targets.copy()
    unanswered[:, n:] = np.nan
    start = ensemble_of(data, dropout=0.0)
    recipe = Recipe(epochs=2, optimizer="sgd", learning_rate=0.05, batch_size=100)
    one = fit(
        start, data, split_of(data), recipe, seeds=[0, 1, 2], defense=OutOfSampleDistillation(views=1),
        teacher_log_probs=unanswered,
    ).ensemble  # fmt: skip
    # in one batch of all, records that are shown twice with one target are records shown once
    other = fit(
        start, data, split_of(data), replace(recipe, batch_size=50), seeds=[0, 1, 2],
        defense=OutOfSampleDistillation(views=0), teacher_log_probs=targets[:, :n],
    ).ensemble  # fmt: skip
    assert largest_difference(one, other) < 1e-5


def test_of_an_image_a_rectangle_is_replaced():
    patterns = Views(1, 0.3).draw([np.arange(9)], 9, (3, 28, 28)).patterns
    for pattern in patterns:
        rows, columns = pattern[0].any(1), pattern[0].any(0)
        assert (pattern == (rows[:, None] & columns[None])[None]).all()
        assert (np.diff(np.flatnonzero(rows)) == 1).all()
        assert (np.diff(np.flatnonzero(columns)) == 1).all()
    shares = patterns.mean((1, 2, 3))
    assert 0.25 < shares.mean() < 0.35
    assert shares.max() <= 0.62


def test_both_backends_see_the_same_views():
    data = blobs()
    split, teacher_log_probs = split_of(data), taught_at(data, 3, 13)
    one, other = (
        fit(
            ensemble_of(data), data, split, SGD, seeds=[0, 1, 2], defense=OutOfSampleDistillation(),
            teacher_log_probs=teacher_log_probs,
            backend=backend,
        ).ensemble
        for backend in ("vmapped", "sequential")
    )  # fmt: skip
    assert largest_difference(one, other) < 1e-4


def test_teachers_are_asked_about_the_very_views_that_are_learned(tmp_path):
    study = parse_study(small_study.table(small_study.write_data(tmp_path), defenses=["oosd"]))
    data = study.data.load()
    split, seeds = split_of(data, members=2, train=120, dev=40), [5, 6]
    defense = OutOfSampleDistillation(4, 2, clusters=3, views=2, swap=0.3, components=0)
    pipeline = Pipeline.open(study, data, Store(tmp_path / "store"), Silent())
    teacher_log_probs = pipeline.teacher.teach(
        "test", pipeline.trainer.train("dense", split, seeds), split, seeds, defense
    )
    assert teacher_log_probs is not None
    assert teacher_log_probs.log_probabilities.shape == (2, 3 * len(data), data.classes)
    parts, k = held_out(split, Teachers(4, 2, 3, Views(2, 0.3)), seeds, data.features), 1
    views = Views(2, 0.3)
    donors = drawn_for(data, split, views).donors[k, 1]
    unseen = parts.roles[k * 4 : k * 4 + 4] == Role.AUDIT
    # a view of which one teacher knows neither record
    record = next(int(r) for r in split.records(k, Role.TRAIN) if (unseen[:, r] & unseen[:, donors[r]]).sum() == 1)
    number = 2 * len(data) + record
    shown = ViewedRecords(torch.from_numpy(data.features), drawn_for(data, split, views))
    x = shown.numbered(torch.tensor([k]), torch.tensor([[number]]))[0].numpy()
    assert not np.array_equal(x[0], data.features[number % len(data)])
    predicted = []
    for t in range(4):
        if unseen[t, record] and unseen[t, donors[record]]:
            seed = derive_seed(seeds[k], "teacher", t)
            part = parts.select([k * 4 + t])
            alone = fit(pipeline.workspace.untrained([seed]), data, part, study.training, seeds=[seed]).ensemble
            logits = alone.logits(x)[0, 0].astype(np.float64)
            predicted.append(np.exp(logits) / np.exp(logits).sum())
    assert len(predicted) == 1
    np.testing.assert_allclose(np.exp(teacher_log_probs.log_probabilities[k, number]), np.mean(predicted, 0), atol=3e-3)


def test_what_was_said_of_records_alone_is_not_enough_for_views():
    data = blobs()
    with pytest.raises(InputError, match=r"all records and views, \(3, 1170, 3\), got \(3, 90, 3\)"):
        fit(
            ensemble_of(data), data, split_of(data), SGD, seeds=[0, 1, 2], defense=OutOfSampleDistillation(),
            teacher_log_probs=taught_at(data, 3, 1),
        )  # fmt: skip

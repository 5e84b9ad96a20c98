"""Out-of-sample distillation: who teaches whom, what is learned, and what it turns into at its limits."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import small_study
from toy import blobs, ensemble_of, largest_difference, same_bytes, split_of
from wemem.config.parse import parse_study
from wemem.data.dataset import Dataset
from wemem.data.neighbours import clusters
from wemem.data.split import Role
from wemem.data.teachers import held_out
from wemem.defenses import (
    DPSGD,
    Batch,
    Distillation,
    EarlyStopping,
    FreshStart,
    OutOfSampleDistillation,
    Teachers,
    Undefended,
    make_defense,
)
from wemem.errors import InputError
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Silent
from wemem.pruning import Pruning, Schedule
from wemem.randomness import derive_seed, generator
from wemem.store.key import Key
from wemem.store.store import Store
from wemem.study.run import run_study
from wemem.training import Recipe, fit

pytestmark = pytest.mark.slow

SGD = Recipe(epochs=3, optimizer="sgd", learning_rate=0.05, batch_size=16)


def taught_for(data, members, seed=0):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(data.classes), (members, len(data)))
    return np.log(probabilities).astype(np.float32)


# --- limit cases ---


def test_teachers_that_are_certain_of_the_label_make_plain_training():
    data = blobs()
    split, certain = split_of(data), np.full((3, len(data), data.classes), -1e4, np.float32)
    certain[:, np.arange(len(data)), data.labels] = 0
    plain = fit(ensemble_of(data), data, split, SGD, seeds=[0, 1, 2])
    teacher_log_probs = fit(
        ensemble_of(data),
        data,
        split,
        SGD,
        seeds=[0, 1, 2],
        defense=OutOfSampleDistillation(views=0),
        teacher_log_probs=certain,
    )
    assert largest_difference(plain.ensemble, teacher_log_probs.ensemble) < 1e-5


def test_hard_labels_alone_make_plain_training_whatever_the_teachers_say():
    data = blobs()
    split = split_of(data)
    plain = fit(ensemble_of(data), data, split, SGD, seeds=[0, 1, 2])
    teacher_log_probs = fit(
        ensemble_of(data), data, split, SGD, seeds=[0, 1, 2], defense=OutOfSampleDistillation(hard=1.0, views=0),
        teacher_log_probs=taught_for(data, 3),
    )  # fmt: skip
    assert largest_difference(plain.ensemble, teacher_log_probs.ensemble) < 1e-5


def test_stopping_after_the_recipe_s_epochs_is_plain_training_to_the_byte():
    data = blobs()
    split = split_of(data)
    plain = fit(ensemble_of(data), data, split, SGD, seeds=[0, 1, 2])
    stopped = fit(ensemble_of(data), data, split, SGD, seeds=[0, 1, 2], defense=EarlyStopping(stop_after=3))
    assert same_bytes(plain.ensemble, stopped.ensemble)


def test_early_stopping_shows_each_record_once_an_epoch():
    data = blobs()
    stopped = fit(
        ensemble_of(data), data, split_of(data), SGD, seeds=[0, 1, 2], defense=make_defense("early_stopping+rsw", {
            "stop_after": 2, "width": 1.0, "stride": 0.0, "order": "random",
        }),
    )  # fmt: skip
    assert [h.records_seen for h in stopped.history] == [100, 100, 100]


# --- the loss ---


def test_the_loss_by_hand():
    teacher_log_probs, logits = np.log([[[0.64, 0.36]]]), np.log([[[0.7, 0.3]]])
    batch = Batch(
        torch.tensor(logits),
        torch.tensor([[1]]),
        torch.ones(1, 1, dtype=torch.float64),
        0,
        torch.tensor(teacher_log_probs),
    )
    # temperature 2 takes square roots: 0.8 and 0.6 of 1.4; a quarter of the target is the hard label
    target = 0.75 * np.array([0.8, 0.6]) / 1.4 + [0, 0.25]
    wanted = -(target * np.log([0.7, 0.3])).sum()
    defense = OutOfSampleDistillation(temperature=2.0, hard=0.25, discount=0.0)
    assert defense.loss(batch).item() == pytest.approx(wanted)


@pytest.mark.parametrize(("label", "lowered"), [(0, 0.15), (1, 0.4), (2, 0.4)])
def test_the_discount_lowers_the_label_and_never_unseats_the_likeliest_class(label, lowered):
    said = torch.log_softmax(torch.tensor([1.3, 1.0, -2.0]), -1)
    logits = torch.tensor([0.2, -0.4, 0.1]).log_softmax(-1)
    batch = Batch(logits.view(1, 1, 3), torch.tensor([[label]]), torch.ones(1, 1), 0, said.view(1, 1, 3))
    target = torch.softmax(said - lowered * torch.eye(3)[label], -1)
    defense = OutOfSampleDistillation(temperature=1.0, discount=0.4)
    assert defense.loss(batch).item() == pytest.approx(-(target * logits).sum().item(), rel=1e-5)
    assert target.argmax() == 0


def test_padding_does_not_count():
    rng = np.random.default_rng(0)
    logits, teacher_log_probs = (torch.tensor(rng.normal(size=(1, 4, 3))) for _ in range(2))
    whole = Batch(logits, torch.zeros(1, 4, dtype=torch.long), torch.tensor([[1.0, 1, 0, 0]]), 0, teacher_log_probs)
    cut = Batch(logits[:, :2], torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 2), 0, teacher_log_probs[:, :2])
    assert torch.equal(OutOfSampleDistillation().loss(whole), OutOfSampleDistillation().loss(cut))


def test_both_backends_learn_the_same():
    data = blobs()
    split, teacher_log_probs = split_of(data), taught_for(data, 3)
    results = [
        fit(
            ensemble_of(data), data, split, SGD, seeds=[0, 1, 2], defense=OutOfSampleDistillation(views=0),
            teacher_log_probs=teacher_log_probs, backend=backend,
        ).ensemble
        for backend in ("vmapped", "sequential")
    ]  # fmt: skip
    assert largest_difference(*results) < 1e-4
    assert largest_difference(results[0], fit(ensemble_of(data), data, split, SGD, seeds=[0, 1, 2]).ensemble) > 1e-2


# --- who teaches ---


@given(st.integers(2, 6), st.data())
def test_every_train_record_is_held_out_from_exactly_as_many_teachers(count, draw):
    times = draw.draw(st.integers(1, count - 1))
    data = blobs()
    split = split_of(data, members=2)
    parts = held_out(
        split, Teachers(count, times, draw.draw(st.sampled_from([0, count, count + 3]))), [3, 4], data.features
    )
    for k in range(2):
        own = parts.roles[k * count : (k + 1) * count]
        train, rest = split.records(k, Role.TRAIN), np.flatnonzero(split.roles[k] != Role.TRAIN)
        assert set((own[:, train] == Role.AUDIT).sum(0)) == {times}
        assert set((own[:, train] == Role.TRAIN).sum(0)) == {count - times}
        assert not np.isin(own[:, rest], (Role.TRAIN, Role.AUDIT)).any()
        assert (own[:, split.records(k, Role.DEV)] == Role.DEV).all()


def test_cross_fitting_holds_out_the_same_share_of_every_class():
    data = blobs(300)
    split = split_of(data, members=1, train=200)
    parts = held_out(split, Teachers(5, 1), [0], data.features)
    for label in range(data.classes):
        sizes = [int((data.labels[parts.records(t, Role.AUDIT)] == label).sum()) for t in range(5)]
        assert max(sizes) - min(sizes) <= 1


def test_targets_are_the_mean_of_the_models_that_did_not_train_on_a_record(tmp_path):
    study = small_study.table(small_study.write_data(tmp_path), defenses=["oosd"])
    config = parse_study(study)
    data = config.data.load()
    split, seeds = split_of(data, members=2, train=120, dev=40), [5, 6]
    defense = OutOfSampleDistillation(4, 2, clusters=3, views=3, components=0)
    pipeline = Pipeline.open(config, data, Store(tmp_path / "store"), Silent())
    teacher_log_probs = pipeline.teacher.teach(
        "test", pipeline.trainer.train("dense", split, seeds), split, seeds, defense
    )
    assert teacher_log_probs is not None
    parts = held_out(split, Teachers(4, 2, 3), seeds, data.features)
    k, record = 1, int(split.records(1, Role.TRAIN)[7])
    teachers = [k * 4 + t for t in range(4) if parts.roles[k * 4 + t, record] == Role.AUDIT]
    predicted = []
    for t in teachers:
        seed = derive_seed(seeds[k], "teacher", t - k * 4)
        alone = fit(
            pipeline.workspace.untrained([seed]), data, parts.select([t]), config.training, seeds=[seed]
        ).ensemble
        logits = alone.logits(data.features[[record]])[0, 0].astype(np.float64)
        predicted.append(np.exp(logits) / np.exp(logits).sum())
    np.testing.assert_allclose(np.exp(teacher_log_probs.log_probabilities[k, record]), np.mean(predicted, 0), atol=1e-3)
    assert not teacher_log_probs.log_probabilities[k].reshape(4, len(data), -1)[:, split.roles[k] != Role.TRAIN].any()


def test_a_record_s_own_label_does_not_reach_its_targets(tmp_path):
    """The point of it: change one record's label, and what is learned about that record stays what it was."""
    study = parse_study(small_study.table(small_study.write_data(tmp_path), defenses=["oosd"]))
    data = study.data.load()
    split = split_of(data, members=1, train=120, dev=40)
    parts = held_out(split, Teachers(5, 1), [0], data.features)
    record = int(split.records(0, Role.TRAIN)[3])
    (teacher,) = [t for t in range(5) if parts.roles[t, record] == Role.AUDIT]
    labels = data.labels.copy()
    labels[record] = (labels[record] + 1) % data.classes
    flipped = type(data).from_arrays("flipped", data.features, labels)
    blank = Pipeline.open(study, data, Store(tmp_path / "store"), Silent()).workspace.untrained([1])
    one, other = (
        fit(blank, d, parts.select([teacher]), study.training, seeds=[1]).ensemble for d in (data, flipped)
    )  # fmt: skip
    assert same_bytes(one, other)


def test_what_is_alike_is_held_out_from_the_same_teachers():
    data = blobs(240)
    # each class is two far groups; a cut in two must find them
    group = np.arange(len(data)) // data.classes % 2
    data = type(data).from_arrays("groups", data.features + 50 * group[:, None].astype(np.float32), data.labels)
    split = split_of(data, members=1, train=150)
    parts = held_out(split, Teachers(6, 2, clusters=2), [0], data.features)
    for label in range(data.classes):
        for side in (0, 1):
            alike = split.records(0, Role.TRAIN)
            alike = alike[(data.labels[alike] == label) & (group[alike] == side)]
            # the groups are not of one size, so the cut may leave a few on the other side
            patterns, sizes = np.unique(parts.roles[:, alike], axis=1, return_counts=True)
            assert patterns.shape[1] <= 2
            assert sizes.max() >= 0.8 * len(alike)


def twins(data, split, distance=0.0):
    """The data set with one train record made a copy of another of another class, and the two records."""
    train = split.records(0, Role.TRAIN)
    one = int(train[0])
    other = int(train[data.labels[train] != data.labels[one]][0])
    features = data.features.copy()
    features[other] = features[one]
    features[other, 0] += distance
    return type(data).from_arrays("twins", features, data.labels), one, other


@pytest.mark.parametrize("cut", [0, 5])
@pytest.mark.parametrize("distance", [0.0, 0.05])
@given(seed=st.integers(0, 9))
def test_twins_of_different_labels_are_held_out_from_the_same_teachers(cut, distance, seed):
    data = blobs(200, seed=seed)
    split = split_of(data, members=1, train=120)
    planted, one, other = twins(data, split, distance)
    roles = held_out(split, Teachers(10, 3, cut), [seed], planted.features).roles
    assert np.array_equal(roles[:, one], roles[:, other])
    # one step further apart than near copies, the two go their own ways for some draw of the teachers
    far = twins(data, split, distance=3.0)[0]
    patterns = [held_out(split, Teachers(10, 3, cut), [s], far.features).roles for s in range(5)]
    assert not all(np.array_equal(roles[:, one], roles[:, other]) for roles in patterns)


def test_a_mislabelled_twin_does_not_reach_the_targets_of_the_other(tmp_path):
    """Change the label of one twin, and the teachers of the other stay what they were, to the byte."""
    study = parse_study(small_study.table(small_study.write_data(tmp_path), defenses=["oosd"]))
    data = study.data.load()
    split = split_of(data, members=1, train=120, dev=40)
    planted, one, other = twins(data, split)
    parts = held_out(split, Teachers(5, 1, 5), [0], planted.features)
    (teacher,) = [t for t in range(5) if parts.roles[t, one] == Role.AUDIT]
    labels = planted.labels.copy()
    labels[other] = labels[one]
    relabelled = type(data).from_arrays("relabelled", planted.features, labels)
    blank = Pipeline.open(study, data, Store(tmp_path / "store"), Silent()).workspace.untrained([1])
    alone = parts.select([teacher])
    before, after = (fit(blank, d, alone, study.training, seeds=[1]).ensemble for d in (planted, relabelled))
    assert same_bytes(before, after)


def test_without_copies_the_teachers_are_those_of_clusters_within_the_classes():
    data = blobs(200)
    split = split_of(data, members=1, train=120)
    rng = generator(0, "split/held out", 10, 3)
    train, roles = rng.permutation(split.records(0, Role.TRAIN)), np.zeros((10, len(data)), np.int8)
    for label in range(data.classes):
        turns = np.zeros(10, np.int64)
        for together in clusters(data.features, train[data.labels[train] == label], 5):
            out = np.lexsort((rng.random(10), turns))[:3]
            turns[out] += len(together)
            roles[:, together] = Role.TRAIN
            roles[np.ix_(out, together)] = Role.AUDIT
    assert np.array_equal(held_out(split, Teachers(10, 3, 5), [0], data.features).roles[:, train], roles[:, train])


@pytest.mark.parametrize("defense", [OutOfSampleDistillation(teachers=2, held_out=1, clusters=0), DPSGD(noise=0.5)])
def test_a_fresh_start_leaves_nothing_of_the_dense_weights(tmp_path, defense):
    study = parse_study(small_study.table(small_study.write_data(tmp_path), defenses=[defense.name]))
    data = study.data.load()
    split = split_of(data, members=1, train=120, dev=40)
    pipeline = Pipeline.open(study, data, Store(tmp_path / "store"), Silent())
    dense = pipeline.trainer.train("dense", split, [0])
    other = replace(dense, key=Key.of("dense", {"other": True}), ensemble=pipeline.workspace.untrained([9]))
    made = {
        start: [
            pipeline.pruner.prune(
                "prune", before, split, Pruning(Schedule(0.6, 2), recipe=study.finetune),
                replace(defense, start=start), seeds=[0], scores=[None],
            )[-1].ensemble
            for before in (dense, other)
        ]
        for start in ("fresh", "dense")
    }  # fmt: skip
    assert same_bytes(*made["fresh"])
    assert not same_bytes(*made["dense"])


# --- what is refused ---


@pytest.mark.parametrize(("settings", "message"), [
    ({"teachers": 1}, "two teachers or more"),
    ({"held_out": 12}, "held out from 1 to 11"),
    ({"clusters": 1}, "clusters must be 0 or at least 2"),
    ({"start": "new"}, "start"),
    ({"temperature": 0.0}, "temperature must be positive"),
    ({"hard": 1.5}, "hard must be a share"),
    ({"discount": -0.1}, "discount must be at least 0"),
    ({"views": -1}, "views must be 0 or more"),
    ({"swap": 1.0}, "the mean share of features that a view replaces"),
])  # fmt: skip
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        make_defense("oosd", settings)


def test_learning_from_nobody_is_refused():
    data = blobs()
    with pytest.raises(InputError, match="learns from teachers"):
        fit(ensemble_of(data), data, split_of(data), SGD, seeds=[0, 1, 2], defense=OutOfSampleDistillation())


def test_records_that_all_are_near_copies_of_one_another_are_refused_by_that_reason():
    line = np.linspace(0, 1, 60, dtype=np.float32)[:, None]
    data = Dataset("line", line, (line[:, 0] > 0.5).astype(np.int64), 2)
    with pytest.raises(InputError, match="near copies of one another"):
        held_out(split_of(data, members=1), Teachers(4, 1), [0], line)


@pytest.mark.parametrize(("model", "defense", "message"), [
    ({"kind": "fc"}, {"kind": "oosd", "teachers": 400, "held_out": 399}, "every teacher to train on a record of"),
    ({"kind": "test_distillation:with_batch_norm"}, {"kind": "dpsgd"}, "without BatchNorm"),
])  # fmt: skip
def test_what_cannot_be_trained_so_is_refused_before_any_training(model, defense, message, tmp_path):
    table = small_study.table(small_study.write_data(tmp_path), defenses=["undefended", defense], model=model)
    store = Store(tmp_path / "store")
    with pytest.raises(InputError, match=message):
        next(run_study(parse_study(table), store, Silent()))
    assert not list((tmp_path / "store").rglob("*.safetensors"))


def with_batch_norm(input_shape, classes):
    return torch.nn.Sequential(
        torch.nn.Linear(input_shape[0], 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 8), torch.nn.Linear(8, classes)
    )


def test_a_chain_with_the_window_keeps_teachers_and_the_fewest_epochs():
    both = make_defense("oosd+rsw+early_stopping", {"teachers": 4, "held_out": 3, "views": 0, "stop_after": 2})
    assert both.capability(Distillation) == Distillation(Teachers(4, 3, None))
    assert both.capability(FreshStart) is not None
    assert (both.epochs(21), Undefended().epochs(21)) == (2, 21)


def test_pruning_under_it_is_the_same_again_and_resumes(tmp_path):
    study = parse_study(small_study.table(small_study.write_data(tmp_path), defenses=["oosd"]))
    data = study.data.load()
    split = split_of(data, members=2, train=120, dev=40)
    pruning = Pruning(Schedule(0.6, 3), recipe=study.finetune)
    found = []
    for folder in ("one", "two"):
        pipeline = Pipeline.open(study, data, Store(tmp_path / folder), Silent())
        dense = pipeline.trainer.train("dense", split, [0, 1])
        for _ in range(2):
            (last,) = pipeline.pruner.prune(
                "prune", dense, split, pruning, OutOfSampleDistillation(), seeds=[0, 1], scores=[None, None]
            )
        found.append(last)
    assert found[0].key == found[1].key
    assert same_bytes(found[0].ensemble, found[1].ensemble)

"""Out-of-sample targets for a loop of one's own: those of the pipeline, to the same weights; weak ones noted."""

import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset, default_collate

import small_study
from own_loop import EPOCHS, SEED, network
from toy import blobs
from wemem import api
from wemem.blocks import PruningEngine, SwappedViews, out_of_sample_targets
from wemem.config.parse import parse_study
from wemem.data.dataset import Dataset
from wemem.data.split import Role, Split
from wemem.data.table_form import Column, TableForm
from wemem.defenses import Distillation, make_defense
from wemem.errors import InputError
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Silent
from wemem.pruning import Pruning, Schedule, iterate
from wemem.store.store import Store
from wemem.training import Ensemble, Recipe
from wemem.training.views import ViewedRecords, only_answered

N, CLASSES = 60, 3
TRAIN = np.arange(N)
NUMBERS = blobs(N).features
TOKENS = np.arange(4 * N).reshape(N, 4)


def of_kind(kind: str) -> Dataset:
    """N training records, and a dev record of each class."""
    data: Dataset = blobs(N + CLASSES, shape=(1, 8, 8) if kind == "images" else (6,))
    if kind != "table":
        return data
    features = data.features.copy()
    features[:, 5], features[7, 0] = np.arange(len(data)) % 2, np.nan
    columns = (Column("a", missing=True), *(Column(str(i)) for i in range(1, 5)), Column("kind", ("x", "y")))
    return Dataset("table", features, data.labels, CLASSES, table=TableForm(columns))


def by_pipeline(data: Dataset, defense, folder, train=TRAIN) -> np.ndarray:
    """Targets of the pipeline's stage for one model, NaN where no teacher answers."""
    config = parse_study(small_study.table(small_study.write_data(folder), defenses=["oosd"]))
    roles = np.where(np.isin(np.arange(len(data)), train), Role.TRAIN, Role.DEV).astype(np.int8)[None]
    split = Split(roles, data.labels, "subsets")
    pipeline = Pipeline.open(config, data, Store(folder / "store"), Silent())
    dense = pipeline.trainer.train("dense", split, [SEED])
    targets = pipeline.teacher.teach("test", dense, split, [SEED], defense)
    assert targets is not None
    return targets.log_probabilities


@pytest.mark.parametrize("kind", ["vectors", "images", "table"])
def test_targets_and_views_are_those_of_the_pipeline_to_the_bit(kind, tmp_path):
    data, defense = of_kind(kind), make_defense("oosd", {"teachers": 6, "held_out": 2, "views": 3})
    soft = out_of_sample_targets(
        None, data.labels[:N], data.features[:N], defense=defense, table=data.table, seed=SEED
    )  # fmt: skip
    raw = by_pipeline(data, defense, tmp_path)
    distillation = defense.capability(Distillation)
    assert distillation is not None
    assert distillation.views is not None
    drawn, filled = only_answered(distillation.views.draw([TRAIN], len(data), data.input_shape), raw)
    assert np.isnan(raw).any()  # some view has no teacher that knows neither record
    theirs = filled.reshape(4, len(data), CLASSES)[:, :N].reshape(4 * N, CLASSES)
    assert soft.log_probabilities.tobytes() == theirs.tobytes()
    shown = soft.viewed(TensorDataset(torch.from_numpy(data.features[:N]), torch.from_numpy(data.labels[:N])))
    lookup = ViewedRecords(torch.from_numpy(data.features), drawn)
    for v, r in [(0, 3), (1, 3), (2, 59), (3, 20)]:
        x, y = shown[v * N + r]
        expected = lookup.numbered(torch.tensor([0]), torch.tensor([[v * len(data) + r]]))[0, 0]
        assert torch.equal(torch.nan_to_num(x), torch.nan_to_num(expected))
        assert y == data.labels[r]


def test_targets_of_records_are_those_of_the_pipeline_wherever_they_stand_among_others(tmp_path):
    data, defense = blobs(90), make_defense("oosd", {"teachers": 6, "held_out": 2})
    train = np.sort(np.random.default_rng(0).permutation(90)[:N])
    soft = out_of_sample_targets(None, data.labels[train], data.features[train], defense=defense, seed=SEED)
    assert soft.log_probabilities[:N].tobytes() == by_pipeline(data, defense, tmp_path, train)[0, train].tobytes()


def test_a_loop_that_learns_from_them_ends_with_the_weights_of_the_ensemble_trainer(tmp_path):
    data = of_kind("vectors")
    defense = make_defense("oosd", {"teachers": 6, "held_out": 2, "views": 3, "views_per_epoch": 2})
    pruning = Pruning(
        Schedule(0.6, 2), recipe=Recipe(epochs=EPOCHS, patience=None, batch_size=16, optimizer="sgd", keep="last")
    )
    roles = np.where(np.arange(len(data)) < N, Role.TRAIN, Role.DEV).astype(np.int8)[None]
    *_, last = iterate(
        Ensemble.from_modules([network()]), data, Split(roles, data.labels, "subsets"), pruning, defense,
        seeds=[SEED], scores=[None], teacher_log_probs=by_pipeline(data, defense, tmp_path), backend="sequential",
    )  # fmt: skip
    x, y = torch.from_numpy(data.features[:N]), torch.from_numpy(data.labels[:N])
    soft = out_of_sample_targets(None, data.labels[:N], data.features[:N], defense=defense, seed=SEED)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    engine = PruningEngine(defense, pruning=pruning, seed=SEED, untrained=True)
    loader = DataLoader(soft.viewed(TensorDataset(x, y)), batch_size=16)
    model, optimizer, batches = engine.prepare(model, optimizer, loader, targets=soft.log_probabilities)
    for _ in engine.rounds():
        for _ in engine.epochs(EPOCHS):
            for inputs, labels in batches:
                engine.loss(model(inputs), labels).backward()
                optimizer.step()
                optimizer.zero_grad()
    for name, weight in model.named_parameters():
        assert torch.allclose(weight, last.ensemble.parameters[name][0], atol=2e-6), name


def never(records, seed):
    raise AssertionError("no teacher of this test is trained")


@pytest.mark.parametrize(
    ("train", "features", "changes", "says"),
    [
        (None, TOKENS, {}, "expected a train function"),
        (None, NUMBERS, {"defense": make_defense("oosd", {"components": 0})}, "train function"),
        (never, NUMBERS, {"defense": make_defense("oosd")}, "expected no train function"),
        (None, NUMBERS, {"teachers": 5}, "settings of the teachers in the defense, got count"),
        (None, NUMBERS, {"defense": make_defense("radd")}, "held-out teachers, got radd"),
        (None, NUMBERS[1:], {}, "features of each of 60 records"),
    ],
)
def test_teachers_that_are_not_those_of_the_defense_are_refused(train, features, changes, says):
    with pytest.raises(InputError, match=says):
        out_of_sample_targets(train, np.arange(N) % CLASSES, features, **changes)


@pytest.mark.parametrize(
    ("labels", "dev_accuracy", "says"),
    [
        (TRAIN % 2 + 0.5, None, "whole-number labels, got float64"),
        (["cat", "dog"] * (N // 2), None, "whole-number labels"),
        (TRAIN % 2, 91.2, "dev_accuracy from 0 to 1, got 91.2"),
        (TRAIN % 2, float("nan"), "dev_accuracy from 0 to 1, got nan"),
    ],
)
def test_labels_and_accuracies_that_would_be_taken_for_others_are_refused(labels, dev_accuracy, says):
    with pytest.raises(InputError, match=says):
        out_of_sample_targets(None, labels, NUMBERS, dev_accuracy=dev_accuracy)


def test_views_are_of_the_kind_of_their_records_so_that_both_make_a_batch():
    data = of_kind("vectors")
    soft = out_of_sample_targets(None, data.labels, data.features)
    arrays = soft.viewed(list(zip(data.features, data.labels, strict=True)))
    tensors = soft.viewed(TensorDataset(torch.from_numpy(data.features), torch.from_numpy(data.labels)))
    numbers = [2 * len(data) + 5, 3, len(data) + 8]
    batches = [default_collate([one[i] for i in numbers]) for one in (arrays, tensors)]
    assert torch.equal(batches[0][0], batches[1][0])
    assert batches[0][0].dtype == torch.float32
    assert not torch.equal(batches[0][0][0], torch.from_numpy(data.features[5]))
    for number in (-1, (1 + arrays.count) * len(data)):
        with pytest.raises(InputError, match="a record or view from 0"):
            arrays[number]


def test_swapped_views_of_other_records_or_inputs_are_refused():
    data = of_kind("vectors")
    soft = out_of_sample_targets(None, data.labels, data.features)
    with pytest.raises(InputError, match="63 records, got 60"):
        soft.viewed(TensorDataset(torch.zeros(N, 6), torch.zeros(N)))
    with pytest.raises(InputError, match=r"got \(2,\)"):
        soft.viewed(TensorDataset(torch.zeros(len(data), 2), torch.zeros(len(data))))
    assert isinstance(soft.viewed(TensorDataset(torch.zeros(len(data), 6), torch.zeros(len(data)))), SwappedViews)


def corners(records: int = 400) -> Dataset:
    """Eight classes in as many directions, of which one principal component shows few."""
    labels = np.arange(records) % 8
    noise = np.random.default_rng(0).normal(0, 0.9, (records, 8))
    return Dataset.from_arrays("corners", 4 * np.eye(8)[labels] + noise, labels)


@pytest.mark.parametrize(("components", "weak"), [(1, True), (None, False)])
def test_a_warning_names_weak_targets_and_only_those(components, weak):
    data, defense = corners(), make_defense("oosd", {"components": components})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        soft = out_of_sample_targets(None, data.labels, data.features, defense=defense, dev_accuracy=0.99)
    assert soft.share_named == np.mean(soft.log_probabilities[: len(data)].argmax(1) == data.labels)
    assert (soft.share_named < 0.84) is weak
    says = f"name the class of {soft.share_named:.1%} of the training records"
    assert [says in str(one.message) for one in caught] == [True] * weak


def test_a_study_and_a_pruning_note_weak_targets_and_only_those(tmp_path):
    data, weak = corners(), {"kind": "oosd", "components": 1, "views": 0, "label": "weak"}
    np.savez(tmp_path / "data.npz", x=data.features, y=data.labels)
    table = small_study.table(
        tmp_path / "data.npz", attacks=["confidence"], split={"shadows": 1}, training={"epochs": 20, "batch_size": 8},
        pruning={"rounds": 1}, defenses=["undefended", weak, {"kind": "oosd", "views": 0, "label": "enough"}],
    )  # fmt: skip
    results = api.run(parse_study(table), tmp_path / "run", tmp_path / "store")
    (note,) = [note for note in results["notes"] if note["code"] == "weak_targets"]
    (dense,) = [run["accuracy"]["dev"] for run in results["runs"] if run["label"] == "dense"]
    assert (note["label"], note["seed"], note["reached"], note["networks"]) == ("weak", 0, dense, False)
    assert note["named"] < 0.7 < 0.9 < dense
    weights, members = tmp_path / "run" / "models" / "dense-seed0.safetensors", tmp_path / "members.npz"
    np.savez(members, members=np.arange(200))
    given = parse_study(table | {"victim": {"weights": str(weights), "members": str(members)}})
    for label in ("weak", "enough"):
        lines = api.prune(given, label, tmp_path / label, tmp_path / "store")
        assert any(line.startswith("The teachers name the class of") for line in lines) is (label == "weak")

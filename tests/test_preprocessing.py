"""Preprocessing of tables: fitted on a model's own training records, and a part of the model."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from wemem.data.dataset import Dataset
from wemem.data.preprocessing import Preprocessing
from wemem.data.preprocessing_file import preprocessing_text, read_preprocessing
from wemem.data.sources import load_dataset
from wemem.data.split import Role, Split
from wemem.data.table_form import Column, TableForm
from wemem.errors import InputError
from wemem.exporting.checkpoint import load_pruned, write_weights
from wemem.models import EntityEmbedding, FullyConnected, make_model
from wemem.models.table import NETWORK, PREPROCESS, TableInput, model_for, table_input
from wemem.queries import robustness, sensitivity
from wemem.training import Ensemble, Recipe, fit

FORM = TableForm((Column("age", (), True), Column("job", ("cook", "nurse", "smith"), True), Column("height")))
CODES = replace(FORM, categories="codes")
NAN = np.nan


def records(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = np.stack([rng.normal(40, 9, count), rng.integers(0, 3, count), rng.normal(170, 8, count)], 1)
    x[rng.random((count, 3)) < (0.2, 0.2, 0)] = NAN
    return x.astype(np.float32)


def people(count: int = 60, form: TableForm = FORM, seed: int = 0) -> Dataset:
    return Dataset("people", records(count, seed), np.arange(count) % 2, 2, table=form)


def split_of(data: Dataset, models: int = 2) -> Split:
    roles = np.full((models, len(data)), Role.AUDIT, np.int8)
    for k in range(models):
        roles[k, 10 * k : 10 * k + 30], roles[k, 40 + 2 * k : 50] = Role.TRAIN, Role.DEV
    return Split(roles, data.labels, "subsets")


def ensemble_of(data: Dataset, models: int = 2) -> Ensemble:
    network = model_for(FullyConnected(hidden=(8,), dropout=0.0), data)
    return Ensemble.initialize(network, data.input_shape, data.classes, list(range(models)))


def layer_of(module: torch.nn.Module) -> TableInput:
    layer = table_input(module)
    assert layer is not None
    return layer


def test_numbers_alone_are_standardized():
    form = TableForm((Column("a"), Column("b")))
    x = records(50)[:, [2, 2]] * np.array([1, 3], np.float32)
    y = Preprocessing.fit(form, x).apply(x)
    np.testing.assert_allclose((y.mean(0), y.std(0)), ([0, 0], [1, 1]), atol=1e-4)


@given(st.integers(0, 1000))
def test_preprocessing_is_that_of_scikit_learn(seed):
    train, others = records(40, seed), records(30, seed + 1)
    received = Preprocessing.fit(FORM, train).apply(others)
    numbers = StandardScaler().fit(train[:, [0, 2]]).transform(others[:, [0, 2]])
    np.testing.assert_allclose(received[:, :2], np.nan_to_num(numbers), rtol=1e-4, atol=1e-4)
    assert received[:, 2].tolist() == (np.isnan(others[:, 0]) & np.isnan(train[:, 0]).any()).tolist()
    wanted = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(train[:, [1]])
    ours = [3 if np.isnan(code) else 4 + int(code) for code in wanted.categories_[0]]
    np.testing.assert_array_equal(received[:, ours], wanted.transform(others[:, [1]]))
    assert not received[:, [i for i in range(3, 7) if i not in ours]].any()


@pytest.mark.parametrize("form", [FORM, CODES, replace(FORM, standardize=False)])
def test_layer_gives_what_the_value_gives(form):
    fitted = Preprocessing.fit(form, records(25))
    x = records(40, seed=5)
    layer = TableInput(form).load(fitted)
    np.testing.assert_allclose(layer(torch.from_numpy(x)).numpy(), fitted.apply(x), rtol=1e-6, atol=1e-6)
    assert fitted.apply(x).shape == (40, form.width)


def test_codes_are_0_for_missing_and_for_unseen_categories():
    train = np.array([[1, 0, 1], [2, 2, 3]], np.float32)
    x = np.array([[1, 0, 1], [1, 1, 1], [1, 2, 1], [NAN, NAN, 1]], np.float32)
    received = Preprocessing.fit(CODES, train).apply(x)
    assert received[:, 2:].tolist() == [[0, 1], [0, 0], [0, 3], [0, 0]]
    assert CODES.code_counts == (0, 0, 0, 4)


def test_records_outside_of_the_training_records_change_nothing():
    data, split = people(), split_of(people())
    fitted = fit(ensemble_of(data), data, split, Recipe(epochs=1), seeds=[0, 1]).ensemble
    outside = np.flatnonzero((split.roles != Role.TRAIN).all(0) & (split.roles != Role.DEV).all(0))
    x = data.features.copy()
    x[outside] = [1e6, 2, -1e6]
    other = fit(ensemble_of(data), replace(data, features=x), split, Recipe(epochs=1), seeds=[0, 1]).ensemble
    for name, tensor in {**fitted.parameters, **fitted.buffers}.items():
        assert torch.equal(tensor, {**other.parameters, **other.buffers}[name]), name


def test_each_model_is_fitted_on_its_own_training_records():
    data, split = people(), split_of(people())
    fitted = fit(ensemble_of(data), data, split, Recipe(epochs=1), seeds=[0, 1]).ensemble
    for k in range(2):
        own = Preprocessing.fit(FORM, data.features[split.records(k, Role.TRAIN)])
        layer = layer_of(fitted.module(k))
        for name in ("filling", "shift", "scale", "present"):
            np.testing.assert_array_equal(getattr(layer.preprocessing, name), getattr(own, name))
        assert layer.preprocessing.records == 30
    assert not torch.equal(*fitted.buffers[f"{PREPROCESS}.shift"])


def test_fine_tuning_keeps_the_preprocessing():
    data = people()
    fitted = fit(ensemble_of(data), data, split_of(data), Recipe(epochs=1), seeds=[0, 1]).ensemble
    moved = Split(np.roll(split_of(data).roles, 3, axis=1), data.labels, "subsets")
    again = fit(fitted, data, moved, Recipe(epochs=1), seeds=[2, 3]).ensemble
    assert torch.equal(again.buffers[f"{PREPROCESS}.shift"], fitted.buffers[f"{PREPROCESS}.shift"])


def test_backends_agree_on_a_table():
    data, recipe = people(), Recipe(epochs=2, optimizer="sgd", batch_size=8)
    one, other = (
        fit(ensemble_of(data), data, split_of(data), recipe, seeds=[0, 1], backend=backend).ensemble
        for backend in ("vmapped", "sequential")
    )
    np.testing.assert_allclose(one.logits(data.features), other.logits(data.features), rtol=1e-4, atol=1e-5)


def test_models_without_preprocessing_are_refused_for_a_table():
    data = people()
    plain = Ensemble.initialize(FullyConnected(hidden=(8,)), data.input_shape, data.classes, [0, 1])
    with pytest.raises(InputError, match="expected models for the columns of 'people', got one without preprocessing"):
        fit(plain, data, split_of(data), Recipe(epochs=1), seeds=[0, 1])


def test_column_without_a_number_in_training_is_0_for_the_model():
    train = np.array([[NAN, 0, 1], [NAN, 1, 3]], np.float32)
    received = Preprocessing.fit(FORM, train).apply(np.array([[1e6, 0, 1], [NAN, 0, 1]], np.float32))
    np.testing.assert_allclose(received[:, 0], 0, atol=1e-30)


def test_entity_embedding_takes_the_codes_of_a_table():
    data = people(form=CODES)
    module = model_for(make_model("entity_embedding", {"hidden": [8]}), data).build(data.input_shape, 2)
    assert module(torch.from_numpy(data.features)).shape == (60, 2)
    assert [e.num_embeddings for e in module.modules() if isinstance(e, torch.nn.Embedding)] == [4]


@pytest.mark.parametrize(
    ("model", "form", "said"),
    [
        (FullyConnected(), CODES, "FullyConnected expected categories as numbers, got codes"),
        (EntityEmbedding(), FORM, "set data.categories = 'codes'"),
    ],
)
def test_models_refuse_the_other_form_of_categories(model, form, said):
    data = people(form=form)
    with pytest.raises(InputError, match=said):
        model_for(model, data).build(data.input_shape, 2)


def test_file_gives_back_the_same_preprocessing(tmp_path):
    fitted, path = Preprocessing.fit(FORM, records(20)), tmp_path / "preprocess.json"
    path.write_text(preprocessing_text(fitted, class_names=["no", "yes"]))
    again, content = read_preprocessing(path)
    assert (again.form, again.records, content["class_names"]) == (FORM, 20, ["no", "yes"])
    for name in ("filling", "shift", "scale", "present"):
        np.testing.assert_array_equal(getattr(again, name), getattr(fitted, name))


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "other/1"}, {"columns": [{"name": "age"}]}, {"columns": []}, {"columns": 3}, {"records": 0},
        {"categories": "other"}, {"standardize": None},
        {"columns": [{"name": 3, "missing": None, "categories": ["a"]}]},
        {"columns": [{"name": "a", "missing": None, "filling": 1e300, "shift": 0, "scale": 1}]},
        {"columns": [{"name": "a", "missing": None, "filling": 0, "shift": 0, "scale": 0}]},
        {"columns": [{"name": "a", "missing": None, "categories": ["x", "y"], "present": [True]}]},
        {"columns": [{"name": "a", "missing": "yes", "categories": ["x"], "present": [True]}]},
    ],
)  # fmt: skip
def test_damaged_file_is_refused(tmp_path, change):
    path = tmp_path / "preprocess.json"
    path.write_text(json.dumps(json.loads(preprocessing_text(Preprocessing.fit(FORM, records(20)))) | change))
    with pytest.raises(InputError):
        read_preprocessing(path)


def test_weights_without_preprocessing_take_it_from_the_file_beside_them(tmp_path):
    data = people()
    module = fit(ensemble_of(data), data, split_of(data), Recipe(epochs=1), seeds=[0, 1]).ensemble.module(0)
    write_weights(tmp_path / "bare.safetensors", module.get_submodule(NETWORK).state_dict())
    blank = model_for(FullyConnected(hidden=(8,)), data).build(data.input_shape, 2)
    with pytest.raises(InputError, match=r"expected the preprocessing of a table .* data.standardize = false"):
        load_pruned(blank, tmp_path / "bare.safetensors")
    layer = layer_of(module)
    (tmp_path / "preprocess.json").write_text(preprocessing_text(layer.preprocessing))
    notes: list[str] = []
    x = torch.from_numpy(data.features)
    assert torch.equal(load_pruned(blank, tmp_path / "bare.safetensors", notes.append)(x), module(x))
    assert len(notes) == 1


def test_preprocessing_of_another_table_is_refused(tmp_path):
    data = people()
    module = fit(ensemble_of(data), data, split_of(data), Recipe(epochs=1), seeds=[0, 1]).ensemble.module(0)
    write_weights(tmp_path / "weights.safetensors", module.state_dict())
    columns = (FORM.columns[0], Column("job", ("cook", "nurse", "tailor"), True), FORM.columns[2])
    other = Preprocessing.fit(TableForm(columns), records(20))
    (tmp_path / "preprocess.json").write_text(preprocessing_text(other))
    blank = model_for(FullyConnected(hidden=(8,)), data).build(data.input_shape, 2)
    with pytest.raises(InputError, match="expected column 'job' in the preprocessing as in the table, 3 categories"):
        load_pruned(blank, tmp_path / "weights.safetensors")
    (tmp_path / "preprocess.json").write_text(preprocessing_text(Preprocessing.fit(FORM, records(20))))
    with pytest.raises(InputError, match="got other numbers; give the right pair"):
        load_pruned(blank, tmp_path / "weights.safetensors")


def test_perturbed_records_of_a_table_are_records_of_the_table():
    data = people()

    class Watching:
        def __init__(self):
            self.seen = []

        def __len__(self):
            return 1

        def logits(self, features):
            FORM.require_records(np.asarray(features, np.float32), "perturbed")
            self.seen.append(features)
            return np.zeros((1, len(features), 2), np.float32)

    watched = Watching()
    sensitivity(watched, data.features, np.full((1, 60, 2), 0.5, np.float32), seed=0, form=data.table)
    robustness(watched, data.features, data.labels, seed=0, form=data.table)
    changed = [(np.nan_to_num(x) != np.nan_to_num(data.features)).mean() for x in watched.seen]
    assert 0.01 < np.mean(changed) < 0.2


def test_numbers_of_a_table_move_in_units_of_their_column():
    data = people()
    form, moved = TableForm((Column("a"), Column("b"))), []
    x = np.stack([data.features[:, 2], 1e6 * data.features[:, 2]], 1)

    class Watching:
        def __len__(self):
            return 1

        def logits(self, features):
            moved.append((features - x) / x.std(0))
            return np.zeros((1, len(x), 2), np.float32)

    sensitivity(Watching(), x, np.full((1, 60, 2), 0.5, np.float32), seed=0, form=form)
    assert 5e-4 < np.std(np.stack(moved)[..., 1]) < 2e-3


def test_categories_of_the_table_do_not_depend_on_the_order_of_its_rows(tmp_path):
    rows = ["3,b,no", "1,a,yes", ",a,no", "2,,yes"]
    tables = []
    for name, order in (("one", rows), ("two", rows[::-1])):
        path = tmp_path / f"{name}.csv"
        path.write_text("n,kind,y\n" + "\n".join(order) + "\n")
        tables.append(load_dataset(str(path)))
    assert tables[0].table == tables[1].table == TableForm((Column("n", (), True), Column("kind", ("a", "b"), True)))
    np.testing.assert_array_equal(tables[0].features, tables[1].features[::-1])
    assert tables[0].class_names == ("no", "yes")

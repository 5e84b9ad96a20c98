"""A table with names, categories and missing values through the commands: run, prune, export, audit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

import wemem
from small_study import table
from wemem import api
from wemem.config.parse import parse_study
from wemem.data.canaries import plant
from wemem.data.preprocessing import Preprocessing
from wemem.data.preprocessing_file import read_preprocessing
from wemem.data.sources import load_dataset
from wemem.data.split import Role
from wemem.errors import InputError
from wemem.exporting.checkpoint import load_pruned
from wemem.files.record_tables import read_members
from wemem.models import FullyConnected
from wemem.models.table import PREPROCESS, model_for
from wemem.pipeline.study_split import study_split

pytestmark = pytest.mark.slow

RECORDS = 400
SMALL = table(Path(), defenses=["undefended"], pruning={"rounds": 2})


def write_table(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = ["client;age;job;city;bought"]
    for i in range(RECORDS):
        label = int(rng.integers(0, 2))
        age = "" if rng.random() < 0.1 else f"{rng.normal(30 + 10 * label, 9):.1f}"
        job = "" if rng.random() < 0.1 else ["cook", "nurse", "smith"][int(rng.integers(0, 2)) + label]
        rows.append(f"c{i:03d};{age};{job};{'ABC'[i % 3]}town;{('no', 'yes')[label]}")
    (folder / "clients.csv").write_text("\n".join(rows) + "\n")
    return folder / "clients.csv"


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("table")
    data = {"source": str(write_table(folder)), "label": "bought", "id": "client", "drop": ["city"]}
    attacks = ["confidence", "samia", "label_noise", "lira"]
    study = SMALL | {"data": data, "attacks": attacks, "model": {"kind": "fc", "hidden": [8]}}
    return folder, study, api.run(parse_study(study), folder / "run", folder / "store")


def test_results_name_the_classes(ran):
    _, _, results = ran
    assert results["data"]["class_names"] == ["no", "yes"]
    assert results["data"]["input_shape"] == [2]


def test_preprocessing_beside_a_model_is_that_of_its_training_records(ran):
    folder, study, _ = ran
    config = parse_study(study)
    data = config.data.load()
    train = study_split(config, data, 0).records(0, Role.TRAIN)
    fitted, content = read_preprocessing(folder / "run/models/dense-seed0.preprocess.json")
    assert content["class_names"] == ["no", "yes"]
    assert fitted.records == len(train)
    np.testing.assert_allclose(fitted.shift, [np.nanmean(data.features[train, 0], dtype=np.float64)], rtol=1e-6)
    pruned = read_preprocessing(folder / "run/models/undefended-sparsity0.6-seed0.preprocess.json")[0]
    np.testing.assert_array_equal(pruned.shift, fitted.shift)
    state = safetensors.torch.load_file(folder / "run/models/undefended-sparsity0.6-seed0.safetensors")
    assert state[f"{PREPROCESS}.shift"].tolist() == fitted.shift.tolist()


@pytest.fixture(scope="module")
def pruned(ran) -> tuple[Path, dict[str, Any]]:
    """The dense model of the study, given as a model whose members are listed by name, pruned and exported."""
    folder, study, _ = ran
    config = parse_study(study)
    data = config.data.load()
    train = study_split(config, data, 0).records(0, Role.TRAIN)
    (folder / "members.csv").write_text("client\n" + "".join(f"c{i:03d}\n" for i in train))
    victim = {"weights": str(folder / "run/models/dense-seed0.safetensors"), "members": str(folder / "members.csv")}
    study = study | {"victim": victim, "attacks": ["confidence", "lira"]}
    api.prune(parse_study(study), "undefended", folder / "pruned", folder / "store")
    return folder, study


def test_pruned_model_keeps_its_preprocessing_and_loads(pruned):
    folder, study = pruned
    data = parse_study(study).data.load()
    before, after = (
        read_preprocessing(path)[0]
        for path in (folder / "run/models/dense-seed0.preprocess.json", folder / "pruned/preprocess.json")
    )
    np.testing.assert_array_equal(after.scale, before.scale)
    model = load_pruned(model_for(FullyConnected(hidden=(8,)), data).build(data.input_shape, 2), folder / "pruned")
    with torch.inference_mode():
        logits = model(torch.from_numpy(data.features))
    assert torch.isfinite(logits).all()
    layers = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    zeros = sum(int((layer.weight == 0).sum()) for layer in layers)
    assert zeros >= 0.5 * layers[0].weight.numel()


def test_model_of_a_table_is_audited_as_weights_and_as_onnx(pruned):
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
    folder, study = pruned
    api.export(parse_study(study), folder / "pruned", folder / "shipped")
    properties = {p.key: json.loads(p.value) for p in onnx.load(folder / "shipped/model.onnx").metadata_props}
    assert properties["class_names"] == ["no", "yes"]
    assert properties["columns"] == [{"name": "age"}, {"name": "job", "categories": ["cook", "nurse", "smith"]}]
    rates = []
    for weights in ("pruned/weights.safetensors", "shipped/model.onnx"):
        given = study | {"victim": study["victim"] | {"weights": str(folder / weights)}}
        results, _ = api.audit(parse_study(given), "undefended", folder / f"audit-{weights[:4]}", folder / "store")
        rates.append({name: attack["auc"] for name, attack in results["runs"][0]["attacks"].items()})
    assert rates[0].keys() == rates[1].keys()
    for name, auc in rates[0].items():
        assert rates[1][name] == pytest.approx(auc, abs=0.01)


def test_module_behind_its_preprocessing_is_pruned_in_python(pruned):
    _, study = pruned
    data = parse_study(study).data.load()
    train = study_split(parse_study(study), data, 0).records(0, Role.TRAIN)
    assert data.table is not None
    fitted = Preprocessing.fit(data.table, data.features[train])
    network = torch.nn.Sequential(torch.nn.Linear(fitted.form.width, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2))
    settings = {"pruning": {"rounds": 2}, "finetune": {"epochs": 1}}
    result = wemem.prune(
        wemem.with_preprocessing(network, fitted), data, train, defense="undefended", settings=settings, progress=False
    )
    kept = read_preprocessing(result.folder / "preprocess.json")[0]
    np.testing.assert_array_equal(kept.scale, fitted.scale)


def test_members_by_name_are_those_by_number(pruned):
    folder, study = pruned
    data = parse_study(study).data.load()
    members = read_members(folder / "members.csv", len(data), data.ids)
    (folder / "numbers.csv").write_text("record\n" + "".join(f"{i}\n" for i in members))
    np.testing.assert_array_equal(read_members(folder / "numbers.csv", len(data), data.ids), members)
    assert data.ids is not None
    assert [data.ids.values[i] for i in members] == [f"c{i:03d}" for i in members]


def test_canaries_of_a_table_are_records_of_the_table(ran):
    config = parse_study(ran[1])
    data = config.data.load()
    planted = plant(data, study_split(config, data, 0), 24, seed=0)
    assert planted.data.table == data.table
    assert planted.data.ids is not None
    assert len(planted.data.ids.values) == len(planted.data) > len(data)


@pytest.mark.parametrize("text", ["client\nc999\n", "client\n\n", "client\n", "name\nc001\n"])
def test_member_that_no_record_is_called_is_refused(pruned, tmp_path, text):
    data = parse_study(pruned[1]).data.load()
    (tmp_path / "members.csv").write_text(text)
    with pytest.raises(InputError, match="expected"):
        read_members(tmp_path / "members.csv", len(data), data.ids)


def test_column_that_names_records_is_no_feature(ran):
    folder, _, _ = ran
    with pytest.raises(
        InputError, match=r"400 different values among 400 records in column 'client'; set data.id = 'client'"
    ):
        load_dataset(str(folder / "clients.csv"), label="bought")


def test_text_becomes_tokens_for_a_model_of_tokens(tmp_path):
    rng = np.random.default_rng(1)
    words = {"0": ["bad", "dull", "slow"], "1": ["good", "bright", "swift"]}
    lines = [f"{y}\tA {rng.choice(words[y])}, {rng.choice(words[y])} film no {i}." for i in range(240) for y in "01"]
    (tmp_path / "films.tsv").write_text("label\tsentence\n" + "\n".join(lines) + "\n")
    study = SMALL | {
        "data": {"source": str(tmp_path / "films.tsv"), "text": "sentence", "tokens": 8, "vocabulary": 512},
        "model": {"kind": "text_transformer", "vocabulary": 512, "width": 8, "depth": 1, "heads": 2, "hidden": 16},
        "attacks": ["confidence"],
        "training": {"epochs": 8, "batch_size": 16},
    }
    results = api.run(parse_study(study), tmp_path / "run", tmp_path / "store")
    assert results["data"]["input_shape"] == [8]
    assert results["runs"][0]["accuracy"]["test"] > 0.9

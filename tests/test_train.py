"""One model is trained as a study trains its own, and its certificate holds for that training alone."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file
from typer.testing import CliRunner

import wemem
from small_study import as_toml, table, write_data
from wemem import api
from wemem.cli.commands import app
from wemem.files.record_tables import read_members

MEMBERS = np.arange(200)
SMALL = {key: value for key, value in table(Path("none"), attacks=["confidence"]).items() if key != "data"}


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    with np.load(write_data(tmp_path_factory.mktemp("data"))) as file:
        return file["x"], file["y"]


@pytest.fixture(scope="module")
def trained(arrays, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return wemem.train(arrays, MEMBERS, study=SMALL, out=folder / "out", store=folder / "store", progress=False)


def audited(weights, arrays, members=MEMBERS, **changed):
    result = wemem.audit(weights, arrays, members, study=SMALL, attacks=["confidence"], progress=False, **changed)
    return result.to_dict()["runs"][0]["certificate"]["adaptive"]


@pytest.mark.slow
def test_a_model_without_given_members_is_the_one_that_the_study_trains(arrays, tmp_path):
    study = SMALL | {"defenses": ["undefended"]}
    alone = wemem.train(arrays, study=study, out=tmp_path / "alone", progress=False)
    wemem.run(study, data=arrays, out=tmp_path / "run", progress=False)
    own, other = (load_file(file) for file in (alone.weights, tmp_path / "run/models/dense-seed0.safetensors"))
    assert own.keys() == other.keys()
    for name, tensor in own.items():
        np.testing.assert_allclose(tensor, other[name], atol=1e-5)


def test_the_model_has_the_certified_accuracy(trained, arrays):
    x, y = arrays
    others = np.setdiff1d(np.arange(len(y)), MEMBERS)
    right = trained.model()(torch.tensor(x[others])).argmax(1).numpy() == y[others]
    content = trained.to_dict()
    dev = round(SMALL["split"].get("dev", 0.1) / 0.6 * len(MEMBERS))
    expected = content["accuracy"]["dev"] * dev + content["accuracy"]["test"] * (len(others) - dev)
    assert right.sum() == pytest.approx(expected)
    assert read_members(trained.members, len(y)).tolist() == MEMBERS.tolist()
    assert "200 records" in repr(trained)


def test_an_audit_with_the_same_settings_and_members_is_adaptive(trained, arrays, tmp_path):
    assert audited(trained.save(tmp_path / "saved"), arrays)
    assert audited(tmp_path / "saved", arrays)  # the folder stands for its weights


def test_dev_records_are_audited_neither_as_members_nor_as_non_members(trained, arrays):
    dev = trained.to_dict()["dev_records"]
    assert dev
    assert not set(dev) & set(MEMBERS.tolist())
    result = wemem.audit(trained.weights, arrays, MEMBERS, study=SMALL, attacks=["confidence"], progress=False)
    audited = pq.read_table(result.folder / "per_sample.parquet")["record"].to_pylist()
    assert not set(dev) & set(audited)
    pruned = wemem.prune(trained.weights, arrays, MEMBERS, defense="undefended", study=SMALL, progress=False)
    assert set(dev) <= set(pruned.to_dict()["dev_records"])


@pytest.mark.parametrize("change", ["training", "members", "weights", "no certificate"])
def test_an_audit_with_anything_else_is_not_adaptive(change, trained, arrays, tmp_path):
    weights, settings, members = trained.save(tmp_path / "saved"), {}, MEMBERS
    if change == "training":
        settings = {"training": {"epochs": 2}}
    elif change == "members":
        members = np.arange(1, 201)
    elif change == "weights":
        other = wemem.train(arrays, np.arange(100, 300), study=SMALL, out=tmp_path / "other", progress=False)
        weights.write_bytes(other.weights.read_bytes())
    else:
        (weights.parent / "training.json").unlink()
    assert not audited(weights, arrays, members, settings=settings)


def test_saving_into_its_own_folder_keeps_every_file(trained):
    before = {file.name: file.read_bytes() for file in trained.folder.iterdir() if file.is_file()}
    trained.save(trained.folder)
    assert {file.name: file.read_bytes() for file in trained.folder.iterdir() if file.is_file()} == before


def test_a_study_with_a_victim_is_refused(trained, arrays, tmp_path):
    victim = {"weights": str(trained.weights), "members": str(trained.members)}
    with pytest.raises(wemem.InputError, match="leave that table out"):
        wemem.train(arrays, MEMBERS, study=SMALL | {"victim": victim}, out=tmp_path / "out", progress=False)


def test_a_trained_model_is_pruned_by_the_command(trained, arrays, tmp_path):
    np.savez(tmp_path / "data.npz", x=arrays[0], y=arrays[1])
    victim = {"weights": str(trained.folder), "members": str(trained.members)}
    study = wemem.parse_study(SMALL | {"victim": victim, "data": {"source": str(tmp_path / "data.npz")}})
    assert any("sparsity 0.6" in line for line in api.prune(study, "undefended", tmp_path / "pruned"))


def test_the_commands_say_what_they_would_train_and_train_it(tmp_path, monkeypatch):
    write_data(tmp_path)
    study = tmp_path / "study.toml"
    study.write_text(as_toml(table(tmp_path / "data.npz", attacks=["confidence"])))
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())

    def said(*arguments):
        result = CliRunner().invoke(app, [*map(str, arguments), "--study", str(study)])
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    assert said("train", "--out", "trained", "--dry-run").startswith("Would train 1 model on")
    assert sorted(tmp_path.iterdir()) == before
    assert "Members trained/members.npz" in said("train", "--out", "trained", "--store", "store")
    given = ["--weights", "trained", "--members", "trained/members.npz", "--store", "store"]
    given += ["--out", "out", "--dry-run"]
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert said("prune", "--defense", "undefended", *given).startswith("Would train 1 model on")
    assert said("audit", *given).startswith(f"Would train {SMALL['split']['shadows']} models on")
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == files

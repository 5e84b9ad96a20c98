"""One model is trained as a study trains its own, and its certificate holds for that training alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import wemem
from small_study import table, write_data
from wemem import api
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

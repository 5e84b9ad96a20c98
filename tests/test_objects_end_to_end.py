"""Audits, exports and diagnoses of objects, from the object to the numbers of its result."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from typer.testing import CliRunner

import wemem
from small_study import as_toml, table, write_data
from wemem.cli.commands import app

pytestmark = pytest.mark.slow

MEMBERS = np.arange(200)
SMALL = {
    key: value
    for key, value in table(
        Path("none"), attacks=["confidence"], training={"epochs": 1, "batch_size": 64},
        finetune={"epochs": 1, "batch_size": 64}, pruning={"rounds": 1}, defenses=["undefended"],
    ).items()
    if key not in ("data", "model")
}  # fmt: skip


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    with np.load(write_data(tmp_path_factory.mktemp("data"))) as file:
        return file["x"], file["y"]


def network(input_shape=(8,), classes=3) -> nn.Module:
    return nn.Sequential(nn.Linear(input_shape[0], 16), nn.ReLU(), nn.Linear(16, classes))


@pytest.fixture(scope="module")
def saved(arrays, tmp_path_factory):
    """The folder that an engine wrote, and the model that it holds."""
    x, y = (torch.tensor(array[MEMBERS]) for array in arrays)
    engine = wemem.PruningEngine("undefended", sparsity=0.6, rounds=1)
    model = network()
    model, optimizer, loader = engine.prepare(
        model, torch.optim.Adam(model.parameters(), 1e-2), DataLoader(TensorDataset(x, y), 50)
    )
    for _ in engine.rounds():
        for _ in engine.epochs(2):
            for features, labels in loader:
                engine.loss(model(features), labels).backward()
                optimizer.step()
                optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("pruned")
    engine.save(folder)
    return folder, engine.finalize().eval()


def test_the_folder_of_an_engine_is_audited_as_its_weights_are_and_never_as_adaptive(saved, arrays):
    runs = [
        wemem.audit(place, arrays, MEMBERS, architecture=network, defense="undefended", study=SMALL, progress=False)
        .to_dict()["runs"][0]
        for place in (saved[0], saved[0] / "weights.safetensors")
    ]  # fmt: skip
    assert runs[0]["attacks"] == runs[1]["attacks"]
    assert runs[0]["audited_file"] == runs[1]["audited_file"]
    assert not runs[0]["certificate"]["adaptive"]


def test_the_command_audits_the_folder_of_an_engine(saved, arrays, tmp_path, monkeypatch):
    np.savez(tmp_path / "data.npz", x=arrays[0], y=arrays[1])
    np.savez(tmp_path / "members.npz", members=MEMBERS)
    (tmp_path / "study.toml").write_text(as_toml(SMALL))
    monkeypatch.chdir(tmp_path)
    given = ["--weights", str(saved[0]), "--members", "members.npz", "--data", "data.npz"]
    model = ["--model", f"{__name__}:network", "--defense", "undefended", "--study", "study.toml"]
    done = CliRunner().invoke(app, ["audit", *given, *model, "--out", "out"])
    assert done.exit_code == 0, done.exception
    assert "confidence" in done.output
    assert (tmp_path / "out/results.json").exists()


def test_an_exported_folder_answers_as_its_model(saved, arrays):
    result = wemem.export(saved[0], arrays, architecture=network, study=SMALL)
    assert result.to_dict()["parity"]["records"] > 1
    session = pytest.importorskip("onnxruntime").InferenceSession(result.path.read_bytes())
    features = arrays[0][:4]
    (logits,) = session.run(None, {session.get_inputs()[0].name: features})
    with torch.no_grad():
        np.testing.assert_allclose(logits, saved[1](torch.tensor(features)).numpy(), atol=1e-5)


def test_an_audit_of_outputs_finds_a_planted_leak_and_none_at_chance(tmp_path):
    rng, records, roles = np.random.default_rng(0), 300, np.zeros((3, 300), np.int8)
    roles[0, :60], roles[0, 60:120] = wemem.Role.TRAIN, wemem.Role.AUDIT
    for k in (1, 2):
        own = 120 + 90 * (k - 1)
        roles[k, own : own + 45], roles[k, own + 45 : own + 90] = wemem.Role.TRAIN, wemem.Role.AUDIT
    labels, aucs = np.arange(records) % 3, []
    for leak in (6.0, 0.0):
        logits = rng.normal(0, 1, (3, records, 3)).astype(np.float32)
        logits[:, np.arange(records), labels] += leak * (roles == wemem.Role.TRAIN)
        np.savez(tmp_path / "signals.npz", logits=logits, labels=labels, roles=roles)
        result = wemem.audit(signals=tmp_path / "signals.npz", attacks=["confidence"], progress=False)
        aucs.append(result.to_dict()["runs"][0]["attacks"]["confidence"]["auc"])
    assert aucs[0] > 0.95
    assert aucs[1] == pytest.approx(0.5, abs=0.15)


def test_a_diagnosis_of_objects_has_its_page_figures_and_table(arrays, tmp_path):
    result = wemem.diagnose(
        SMALL, data=arrays, architecture=network, models=6, settings={"pruning": {"rounds": 2}}, progress=False
    )
    assert result.report(tmp_path / "page").exists()
    assert result.figure(result.figures[0]).axes
    assert len(result.to_pandas()) == len(result.to_dict()["scenario"]["effects"]) > 0

"""One given model: pruned on its own records, audited with models made as it was."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from small_study import CLASSES, FEATURES, RECORDS, table, write_data
from wemem import api, cli
from wemem.config.parse import parse_study
from wemem.data.sources import DataSource
from wemem.data.split import Role
from wemem.errors import InputError
from wemem.exporting.checkpoint import write_weights
from wemem.exporting.sparse import read_sparse
from wemem.files.record_tables import read_members
from wemem.metrics.registry import METRICS, tpr_metric
from wemem.models import FullyConnected
from wemem.notes import shown
from wemem.pipeline.progress import Silent
from wemem.store.store import Store
from wemem.study.single_model import audit_model, prune_model

pytestmark = pytest.mark.slow

MODEL = FullyConnected((24, 12), 0.0)
MEMBERS = np.arange(0, RECORDS, 3)
STILL = {"epochs": 1, "learning_rate": 0.0, "weight_decay": 0.0}


class Heard(Silent):
    """The stages that were begun, with their work, and the plan."""

    def __init__(self):
        self.planned = 0.0
        self.begun: dict[str, float] = {}

    def plan(self, work: float) -> None:
        self.planned = work

    def begin(self, stage: str, work: float) -> None:
        self.begun[stage] = work


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    """A study with a model that exists: one that was never trained, but nobody can tell."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        write_weights(tmp_path / "given.safetensors", MODEL.build((FEATURES,), CLASSES).state_dict())
    np.savez(tmp_path / "members.npz", members=MEMBERS)
    victim = {"weights": str(tmp_path / "given.safetensors"), "members": str(tmp_path / "members.npz")}
    mixed = write_data(tmp_path, random_labels=True)
    return table(
        mixed, victim=victim, attacks=["confidence"], defenses=["undefended", "rsw"],
        model={"kind": "fc", "hidden": [24, 12], "dropout": 0.0}, split={"shadows": 2, "references": 4},
    )  # fmt: skip


def test_pruning_that_learns_nothing_leaves_the_given_weights_and_exact_zeros(given, tmp_path):
    config = parse_study(given | {"finetune": STILL})
    told = api.prune(config, "undefended", tmp_path / "out")
    before, after = load_file(tmp_path / "given.safetensors"), load_file(tmp_path / "out/weights.safetensors")
    masks = load_file(tmp_path / "out/masks.safetensors")
    assert set(masks) == {"1.weight", "4.weight"}
    for name, tensor in before.items():
        kept = masks.get(name, torch.ones_like(tensor, dtype=torch.bool))
        assert torch.equal(after[name], tensor * kept)
    for name, mask in masks.items():
        assert int((~mask).sum()) == round(0.6 * mask.numel()) == int((after[name] == 0).sum())
        assert before[name][mask].abs().min() >= before[name][~mask].abs().max()
    plain = MODEL.build((FEATURES,), CLASSES)
    plain.load_state_dict(after)
    assert str(tmp_path / "out/weights.safetensors") in told[-1]


def test_certificate_is_of_that_very_file(given, tmp_path):
    api.prune(parse_study(given), "undefended", tmp_path / "out")
    told = json.loads((tmp_path / "out/pruning.json").read_text())
    assert told["schema"] == "wemem.pruning/1"
    content = (tmp_path / "out/weights.safetensors").read_bytes()
    assert told["weights_sha256"] == hashlib.sha256(content).hexdigest()
    assert [round(r["sparsity"], 1) for r in told["rounds"]] == [0.0, 0.4, 0.6]


def test_a_given_model_is_tuned_on_its_members_and_stopped_on_others(given, tmp_path):
    pruned = prune_model(parse_study(given), "undefended", Store(tmp_path / "store"), Silent())
    assert np.array_equal(pruned.split.records(0, Role.TRAIN), MEMBERS)
    assert not pruned.dev_from_training
    assert len(pruned.split.records(0, Role.DEV)) == round(len(MEMBERS) / 6)


def test_where_no_others_are_the_dev_records_are_members_and_that_is_said(given, tmp_path):
    np.savez(tmp_path / "members.npz", members=np.arange(RECORDS))
    config = parse_study(given)
    pruned = prune_model(config, "undefended", Store(tmp_path / "store"), Silent())
    assert pruned.dev_from_training
    assert not len(pruned.split.records(0, Role.AUDIT))
    told = api.prune(config, "undefended", tmp_path / "out", tmp_path / "store")
    assert any("dev accuracy is too high" in line for line in told)


def test_all_work_of_pruning_is_planned(given, tmp_path):
    heard = Heard()
    api.prune(parse_study(given), "rsw", tmp_path / "out", progress=heard)
    assert heard.planned == pytest.approx(sum(heard.begun.values()), rel=0.02)


@pytest.mark.parametrize("defense", ["hamp", "rsw"])
def test_export_states_that_altered_answers_do_not_ship(given, tmp_path, defense):
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    config = parse_study(given | {"finetune": STILL, "defenses": [defense]})
    api.prune(config, defense, tmp_path / "out")
    lines = api.export(config, tmp_path / "out", tmp_path / "shipped")
    assert any("alters answers when the model is queried" in line for line in lines) == (defense == "hamp")


def test_audit_of_an_unpruned_model_trains_nothing_for_defenses(given, tmp_path):
    heard = Heard()
    config = parse_study(given | {"attacks": ["confidence", "lira"]})
    results, _ = api.audit(config, None, tmp_path / "out", progress=heard)
    trained = [stage for stage, work in heard.begun.items() if work]
    assert trained == ["dense shadows", "dense references 1-4 of 4"]
    assert results["runs"][0]["sparsity"] == 0
    assert heard.planned >= sum(heard.begun.values())


def test_audit_tells_nothing_of_the_shadows_as_if_it_were_the_victims(given, tmp_path):
    (run,) = api.audit(parse_study(given), "rsw", tmp_path / "out")[0]["runs"]
    assert run["rounds"] == []
    assert run["records_seen"] == 0
    assert (run["defense"], run["sparsity"]) == ("rsw", 0.6)


def test_lent_members_are_not_audited(given, tmp_path):
    np.savez(tmp_path / "members.npz", members=np.arange(RECORDS - 150))
    given["victim"]["adversary_share"] = 0.6
    outcome = audit_model(parse_study(given), None, Store(tmp_path / "store"), Silent())
    members = outcome.split.records(0, Role.TRAIN)
    assert len(members) == round(0.4 * (RECORDS - 150))
    shown = (outcome.split.roles[1:] != Role.UNUSED).any(axis=0)
    assert not shown[outcome.split.audited(0)].any()


def test_shadows_and_references_train_on_as_many_records_of_each_class_as_the_victim(given, tmp_path):
    config = parse_study(given | {"attacks": ["confidence", "lira"]})
    api.prune(config, "rsw", tmp_path / "out", tmp_path / "store")
    given["victim"]["weights"] = str(tmp_path / "out/weights.safetensors")
    config = parse_study(given | {"attacks": ["confidence", "lira"]})
    results, _ = api.audit(config, "rsw", tmp_path / "audit", tmp_path / "store")
    certificate = results["runs"][0]["certificate"]
    assert certificate["victim_recipe_fingerprint"].endswith(f":{len(MEMBERS)}")
    assert certificate["adaptive"]
    assert not any("adaptive in size" in note for note in map(shown, results["notes"]))


def test_an_audit_with_too_few_records_for_shadows_of_the_victims_size_is_not_adaptive(given, tmp_path):
    np.savez(tmp_path / "members.npz", members=np.arange(RECORDS - 300))
    config = parse_study(given)
    api.prune(config, "rsw", tmp_path / "out", tmp_path / "store")
    given["victim"]["weights"] = str(tmp_path / "out/weights.safetensors")
    results, _ = api.audit(parse_study(given), "rsw", tmp_path / "audit", tmp_path / "store")
    assert not results["runs"][0]["certificate"]["adaptive"]
    assert not results["runs"][0]["attacks"]["confidence"]["adaptive"]
    assert any(
        "not adaptive in size: the adversary's shadow models were trained on" in note
        for note in map(shown, results["notes"])
    )


def test_a_planted_leak_is_found(given, tmp_path):
    """A given model that knows random labels by heart is told apart from models that do not by its confidence."""
    data = DataSource(given["data"]["source"]).load()
    x, y = torch.from_numpy(data.features[MEMBERS]), torch.from_numpy(data.labels[MEMBERS])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = FullyConnected((128, 64), 0.0).build((FEATURES,), CLASSES)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(300):
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            optimizer.step()
    write_weights(tmp_path / "given.safetensors", model.state_dict())
    config = parse_study(given | {"model": {"kind": "fc", "hidden": [128, 64], "dropout": 0.0}})
    found = audit_model(config, None, Store(tmp_path / "store"), Silent()).report["confidence"]
    assert found.measure(METRICS["auc"]).value > 0.9
    assert found.measure(tpr_metric(0.4)).value > 0.95


@pytest.mark.parametrize(
    ("changed", "label", "message"),
    [
        ({}, "swmr", "expected a defense among undefended, rsw, got 'swmr'"),
        ({"pruning": {"sparsity": [0.5, 0.6]}}, "rsw", "one sparsity"),
        ({"attacks": "all"}, "rsw", "'pruning_trajectory' needs the model before|'dense_and_pruned' needs the model"),
        ({"attacks": ["lira_releases"]}, "rsw", "'lira_releases' needs the model before its last round"),
        (
            {"attacks": ["sparsity_pattern"], "pruning": {"method": "l1_filter"}},
            None,
            "'sparsity_pattern' expected a file of weights of which single ones are pruned, got an ONNX file or one",
        ),
        ({"defenses": [{"kind": "rsw", "width": 500}]}, "rsw", "smallest class"),
        ({"split": {"shadows": 2, "references": 3}, "attacks": ["lira"]}, None, "even number"),
        ({"defenses": [{"kind": "rsw", "references": 3}], "attacks": ["lira"]}, "rsw", "even number"),
        ({"defenses": [{"kind": "rsw", "grid": {"width": [0.2, 0.3]}}]}, "rsw", "got a grid"),
    ],
)
def test_what_cannot_be_audited_is_refused_before_any_training(changed, label, message, given, tmp_path):
    heard = Heard()
    with pytest.raises(InputError, match=message):
        audit_model(parse_study(given | changed), label, Store(tmp_path / "store"), heard)
    assert not heard.begun


@pytest.mark.parametrize(
    ("changed", "label", "message"),
    [
        ({}, "rswm", "did you mean 'rsw'"),
        ({"pruning": {"sparsity": [0.5, 0.6]}}, "rsw", "one sparsity"),
        ({"pruning": {"rewind": "initial"}}, "rsw", "initial weights are not known"),
        ({"defenses": [{"kind": "rsw", "width": 500}]}, "rsw", "smallest class"),
    ],
)
def test_what_cannot_be_pruned_is_refused_before_any_training(changed, label, message, given, tmp_path):
    heard = Heard()
    with pytest.raises(InputError, match=message):
        prune_model(parse_study(given | changed), label, Store(tmp_path / "store"), heard)
    assert not heard.begun


def test_without_a_model_there_is_nothing_to_prune_or_audit(given, tmp_path):
    del given["victim"]
    for function in (prune_model, audit_model):
        with pytest.raises(InputError, match="give --weights and --members"):
            function(parse_study(given), "rsw", Store(tmp_path / "store"), Silent())


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
def test_members_are_read_from_every_kind_of_file(suffix, tmp_path):
    path, members = tmp_path / f"members{suffix}", np.array([5, 2, 9])
    if suffix == ".csv":
        pyarrow.csv.write_csv(pa.table({"record": members, "note": ["a", "b", "c"]}), path)
    elif suffix == ".parquet":
        pyarrow.parquet.write_table(pa.table({"record": members.astype(np.uint16)}), path)
    else:
        np.savez(path, members=members)
    assert read_members(str(path), 10).tolist() == [2, 5, 9]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.csv", b"", "a member list with a column record that can be read, got: Empty CSV"),
        ("m.csv", b"index\n1\n", "got 0 columns of the name 'record'"),
        ("m.csv", b"record\n", "list of record numbers"),
        ("m.csv", b"record\n1.5\n", r"Float value 1\.5\d* was truncated"),
        ("m.csv", b"record\nsix\n", "Failed to parse string: 'six'"),
        ("m.csv", b"record\n1\n\n-1\n", "records 0..9"),
        ("m.csv", b"record\n10\n", "records 0..9"),
        ("m.csv", b"record\n" + b"1\n" * 11, "at most 10 rows"),
        ("m.npz", b"", "damaged"),
        ("m.npz", b"PK\x03\x04 and nothing more", "damaged"),
        ("m.npz", b"\x93NUMPY\x01\x00v\x00{'descr': '|O'}", "damaged"),
        ("m.parquet", b"PAR1", "that can be read"),
        ("m.txt", b"1", "ending in .csv or .parquet"),
        ("m.csv", None, "no such file"),
        ("m.parquet", None, "no such file"),
        ("m.npz", None, "no such file"),
    ],
)
def test_broken_member_lists_are_refused_in_one_line(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as refused:
        read_members(str(tmp_path / name), 10)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "arrays", [{"record": [1, 2]}, {"members": [0.5]}, {"members": [[1]]}, {"members": []}, {"members": [True]}]
)
def test_member_arrays_that_are_no_lists_of_records_are_refused(arrays, tmp_path):
    ((name, values),) = arrays.items()
    np.savez(tmp_path / "m.npz", allow_pickle=False, **{name: np.array(values)})
    with pytest.raises(InputError, match=r"members|record numbers"):
        read_members(str(tmp_path / "m.npz"), 10)


def test_truncated_weights_are_refused_wherever_they_end(given, tmp_path):
    whole = (tmp_path / "given.safetensors").read_bytes()
    for size in (0, 4, 8, 50, len(whole) // 2, len(whole) - 1):
        (tmp_path / "given.safetensors").write_bytes(whole[:size])
        with pytest.raises(InputError, match="safetensors format") as refused:
            prune_model(parse_study(given), "undefended", Store(tmp_path / "store"), Silent())
        assert "\n" not in str(refused.value)


def test_command_prunes_and_audits(given, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick.toml").write_text(
        "[model]\nhidden = [24, 12]\ndropout = 0.0\n[split]\nshadows = 2\n[training]\nepochs = 1\n"
        "[finetune]\nepochs = 1\n[pruning]\nrounds = 2\n[scores]\nmodels = 10\n"
    )
    shared = ["--data", "data.npz", "--members", "members.npz", "--study", "quick.toml", "--defense", "rsw"]

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["wemem", *arguments, *shared])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 0
        return capsys.readouterr().out

    assert "load_state_dict" in run("prune", "--weights", "given.safetensors", "--out", "pruned")
    printed = run(
        "audit", "--weights", "pruned/weights.safetensors", "--out", "audit", "--attacks", "threshold", "--worst", "3"
    )
    for expected in ("confidence", "top_confidence", "chance", "most exposed", "all are", "audit/results.json"):
        assert expected in printed
    told = json.loads((tmp_path / "audit/results.json").read_text())["runs"][0]
    assert told["certificate"]["adaptive"]


def test_the_compact_file_holds_the_same_weights_and_the_footprint_is_told(given, tmp_path):
    told = api.prune(parse_study(given), "undefended", tmp_path / "out")
    dense, compact = (tmp_path / "out" / f"weights{kind}.safetensors" for kind in ("", ".sparse"))
    before, after = load_file(dense), read_sparse(compact)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    costs = json.loads((tmp_path / "out/pruning.json").read_text())["footprint"]
    assert costs["pruned"]["dense_bytes"] == dense.stat().st_size
    assert costs["pruned"]["sparse_bytes"] == compact.stat().st_size < dense.stat().st_size
    assert costs["pruned"]["nonzero"] < costs["dense"]["nonzero"] == 24 * 8 + 24 + 12 * 24 + 12 + 3 * 12 + 3
    assert costs["dense"]["macs"] == 24 * 8 + 12 * 24 + 3 * 12
    assert set(costs["latency_seconds"]) == {"1", "128"}
    assert any(f"{compact.stat().st_size:,} in the compact file" in line for line in told)

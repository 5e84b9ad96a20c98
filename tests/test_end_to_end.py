"""Whole studies on small data: what they leave, what they reuse, and that a person can recompute it."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

from small_study import table, without_times, write_data
from wemem import api
from wemem.config.parse import parse_study
from wemem.data.sources import DataSource
from wemem.data.split import Role
from wemem.errors import InputError
from wemem.exporting.checkpoint import write_weights
from wemem.metrics.registry import METRICS
from wemem.models import FullyConnected
from wemem.notes import shown
from wemem.pipeline.parties import Parties
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Silent
from wemem.pipeline.trainer import Trainer
from wemem.results.schema import results_schema
from wemem.signals import SignalLayout
from wemem.store.store import Store
from wemem.study.run import run_study
from wemem.study.single_model import audit_model, prune_model

pytestmark = pytest.mark.slow


class Recorder(Silent):
    """Remembers what a study said it did."""

    def __init__(self):
        self.open: str | None = None
        self.computed: list[str] = []
        self.stored: list[str] = []

    def plan(self, work):
        assert work > 0

    def begin(self, stage, work):
        assert self.open is None
        self.open = stage

    def advance(self, fraction, detail):
        assert self.open
        assert 0 <= fraction <= 1

    def end(self, *, stored):
        (self.stored if stored else self.computed).append(self.open or "")
        self.open = None

    def tell(self, message: str) -> None: ...

    def warn(self, message):
        raise AssertionError(message)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def data(folder: Path) -> Path:
    return write_data(folder)


@pytest.fixture(scope="module")
def results(folder: Path, data: Path) -> dict[str, Any]:
    options = {"leave_one_out": True, "non_adaptive": True, "split": {"shadows": 2, "references": 6}}
    return api.run(parse_study(table(data, **options)), folder / "out")


def test_results_follow_the_schema(results, folder):
    jsonschema.validate(results, results_schema())
    assert json.loads((folder / "out" / "results.json").read_text()) == results


def test_every_defense_reaches_the_sparsity_and_dense_stands_beside_it(results):
    assert [(run["label"], round(run["sparsity"], 2)) for run in results["runs"]] == [
        ("dense", 0.0), ("undefended", 0.6), ("swmr", 0.6),
    ]  # fmt: skip
    assert all(run["certificate"]["adaptive"] for run in results["runs"])


def test_the_figures_can_be_recomputed_from_the_records(results, folder):
    samples = pq.read_table(folder / "out" / "per_sample.parquet")
    for run in results["runs"]:
        own = [r for r in samples.to_pylist() if r["label"] == run["label"]]
        member = np.array([r["member"] for r in own])
        for name, told in run["attacks"].items():
            score = np.array([r[name] for r in own])
            assert told["auc"] == pytest.approx(roc_auc_score(member, score), abs=1e-12)
            assert (told["members"], told["nonmembers"]) == (member.sum(), (~member).sum())
            allowed = int(0.1 * (~member).sum())
            threshold = np.sort(score[~member])[::-1][allowed]
            assert told["tpr_at_fpr"]["0.1"] == pytest.approx((score[member] > threshold).mean(), abs=1e-12)


def test_models_load_in_plain_pytorch_and_are_sparse_to_the_weight(results, folder):
    path = folder / "out" / "models" / "swmr-sparsity0.6-seed0.safetensors"
    model = FullyConnected((24, 12)).build((8,), 3)
    model.load_state_dict(load_file(path))
    masks = load_file(path.with_suffix(".masks.safetensors"))
    for name, mask in masks.items():
        weight = model.get_parameter(name)
        assert int((~mask).sum()) == round(0.6 * mask.numel())
        assert not weight[~mask].any()


def test_leave_one_out_attacks_every_reference_model_and_the_victim(results):
    told = results["runs"][1]["leave_one_out"]["lira"]
    assert told["targets"] == 7
    assert told["auc"]["ci"][0] <= told["auc"]["value"] <= told["auc"]["ci"][1]


def test_the_same_study_gives_the_same_results_in_an_empty_store(data, tmp_path):
    study = parse_study(table(data, attacks="threshold"))
    first, second = api.run(study, tmp_path / "a" / "out"), api.run(study, tmp_path / "b" / "out")
    assert without_times(first) == without_times(second)
    assert (tmp_path / "a/out/per_sample.parquet").read_bytes() == (tmp_path / "b/out/per_sample.parquet").read_bytes()


def test_a_second_run_computes_nothing_and_another_defense_only_itself(data, tmp_path):
    study = table(data, attacks=["confidence"])
    api.run(parse_study(study), tmp_path / "out", progress=Recorder())
    again = Recorder()
    api.run(parse_study(study), tmp_path / "again", progress=again)
    assert again.computed == []
    more = Recorder()
    api.run(parse_study(study | {"defenses": ["undefended", "swmr", "rmr"]}), tmp_path / "more", progress=more)
    assert more.computed == ["prune under rmr", "query rmr", "confidence on rmr"]


@pytest.mark.parametrize(
    "changed",
    [
        {"seeds": [1]},
        {"model": {"kind": "fc", "hidden": [24, 13]}},
        {"model": {"kind": "fc", "hidden": [24, 12], "dropout": 0.2}},
        {"split": {"shadows": 3}},
        {"split": {"shadows": 2, "train": 0.5}},
        {"training": {"epochs": 2, "batch_size": 32}},
        {"training": {"epochs": 3, "batch_size": 32, "learning_rate": 0.01}},
        {"backend": "sequential"},
    ],
)
def test_a_changed_setting_never_meets_a_stale_dense_model(changed, data, tmp_path):
    base = table(data, attacks=["confidence"], defenses=["undefended"])
    api.run(parse_study(base), tmp_path / "out")
    heard = Recorder()
    api.run(parse_study(base | changed), tmp_path / "other", progress=heard)
    assert "dense models" in heard.computed


@pytest.mark.parametrize(
    ("defenses", "changed"),
    [
        ([{"kind": "rsw", "width": 0.5}], {}),
        ([{"kind": "rsw", "order": "high_first"}], {}),
        ([{"kind": "rsw"}], {"pruning": {"rounds": 3, "sparsity": 0.7}}),
        ([{"kind": "rsw"}], {"pruning": {"rounds": 3, "scope": "global"}}),
        ([{"kind": "rsw"}], {"pruning": {"rounds": 3, "schedule": "cubic"}}),
        ([{"kind": "rsw"}], {"finetune": {"epochs": 1, "batch_size": 32}}),
        ([{"kind": "rsw"}], {"scores": {"models": 10, "form": "indicator"}}),
    ],
)
def test_a_changed_setting_never_meets_a_stale_pruned_model(defenses, changed, data, tmp_path):
    base = table(data, attacks=["confidence"], defenses=["rsw"])
    api.run(parse_study(base), tmp_path / "out")
    heard = Recorder()
    api.run(parse_study(base | changed | {"defenses": defenses}), tmp_path / "other", progress=heard)
    assert any(stage.startswith("prune under rsw") for stage in heard.computed)
    assert "dense models" in heard.stored


def test_no_party_trains_a_scoring_model_on_the_others_records(data, tmp_path, monkeypatch):
    splits = {}
    plan = Trainer.plan

    def recorded(self, title, split, seeds):
        splits[title] = split
        return plan(self, title, split, seeds)

    monkeypatch.setattr(Trainer, "plan", recorded)
    api.run(parse_study(table(data)), tmp_path / "out")
    victim = splits["dense models"].roles[0]
    shadows = splits["dense models"].roles[1:]
    scored = set()
    for title, split in splits.items():
        trained = (split.roles == Role.TRAIN).any(axis=0)
        if title.startswith("defender"):
            assert set(victim[trained]) == {Role.TRAIN}
        if title.startswith("shadow "):
            model = int(title.split()[1]) - 1
            assert set(victim[trained]) == {Role.UNUSED}
            assert set(shadows[model, trained]) == {Role.TRAIN}
            scored.add(model)
    assert scored == set(range(len(shadows)))


def test_a_null_study_stays_at_chance(tmp_path):
    """Labels that have nothing to do with the features, and models that never saw an example: a learning rate of 0."""
    data = write_data(tmp_path, random_labels=True)
    study = table(
        data, attacks="all", training={"epochs": 1, "learning_rate": 0.0}, finetune={"epochs": 1, "learning_rate": 0.0}
    )
    study |= {"defenses": ["undefended"], "split": {"shadows": 3, "references": 16}}
    for run in api.run(parse_study(study), tmp_path / "out")["runs"]:
        for name, told in run["attacks"].items():
            assert told["auc_ci"][0] <= 0.5 + 0.03, (run["label"], name)
            assert told["auc_ci"][1] >= 0.5 - 0.03, (run["label"], name)


def test_a_model_that_memorizes_random_labels_is_found_out(tmp_path):
    data = write_data(tmp_path, random_labels=True)
    long = {"epochs": 150, "patience": 150, "batch_size": 32, "learning_rate": 0.01, "weight_decay": 0.0}
    study = table(data, attacks=["confidence", "lira"], training=long, finetune=long | {"epochs": 20})
    study |= {"defenses": ["undefended"], "model": {"kind": "fc", "hidden": [128, 64], "dropout": 0.0}}
    # with random labels the best dev checkpoint is an early one, which bounds what there is to find
    dense, pruned = api.run(parse_study(study), tmp_path / "out")["runs"]
    assert pruned["attacks"]["confidence"]["auc"] > 0.6
    assert pruned["attacks"]["lira"]["auc"] > 0.6
    assert dense["accuracy"]["test"] < 0.5


def given_model(tmp_path: Path, data: Path) -> tuple[dict[str, Any], FullyConnected]:
    """A trained victim on disk, and the study that prunes or audits it."""
    study = table(data, attacks=["confidence", "lira"], defenses=["undefended", "rsw"])
    config = parse_study(study)
    store = Store(tmp_path / "store")
    parties = Parties.of(Pipeline.open(config, config.data.load(), store, Recorder()), 0)
    write_weights(tmp_path / "victim.safetensors", parties.dense().result().ensemble.state(0))
    np.savez(tmp_path / "members.npz", members=parties.split.records(0, Role.TRAIN))
    victim = {"weights": str(tmp_path / "victim.safetensors"), "members": str(tmp_path / "members.npz")}
    return study | {"victim": victim}, FullyConnected((24, 12))


def test_a_given_model_is_pruned_certified_and_audited_adaptively(tmp_path, data):
    study, model = given_model(tmp_path, data)
    lines = api.prune(parse_study(study), "rsw", tmp_path / "pruned", tmp_path / "store", Recorder())
    assert "0.6" in lines[0]
    plain = model.build((8,), 3).eval()
    plain.load_state_dict(load_file(tmp_path / "pruned" / "weights.safetensors"))
    stage = prune_model(parse_study(study), "rsw", Store(tmp_path / "store"), Recorder()).stage
    x = DataSource(str(data)).load().features
    with torch.no_grad():
        assert np.array_equal(plain(torch.from_numpy(x)).numpy(), stage.ensemble.logits(x)[0])

    study["victim"]["weights"] = str(tmp_path / "pruned" / "weights.safetensors")
    results, samples = api.audit(parse_study(study), "rsw", tmp_path / "audit", tmp_path / "store", Recorder())
    jsonschema.validate(results, results_schema())
    assert results["runs"][0]["certificate"]["adaptive"]
    assert len(samples) == 1 * sum(results["runs"][0]["attacks"]["lira"][k] for k in ("members", "nonmembers"))

    (tmp_path / "pruned" / "pruning.json").unlink()
    uncertified, _ = api.audit(parse_study(study), "rsw", tmp_path / "audit", tmp_path / "store", Recorder())
    assert not uncertified["runs"][0]["certificate"]["adaptive"]


def test_a_certificate_for_another_defense_does_not_make_an_audit_adaptive(tmp_path, data):
    study, _ = given_model(tmp_path, data)
    api.prune(parse_study(study), "undefended", tmp_path / "pruned", tmp_path / "store", Recorder())
    study["victim"]["weights"] = str(tmp_path / "pruned" / "weights.safetensors")
    outcome = audit_model(parse_study(study), "rsw", Store(tmp_path / "store"), Recorder())
    assert not any(result.adaptive for result in outcome.report.results)


def test_a_study_starts_from_the_given_weights(tmp_path, data):
    study, _ = given_model(tmp_path, data)
    config = parse_study(study)
    first = next(iter(run_study(config, Store(tmp_path / "store"), Recorder())))
    given = load_file(tmp_path / "victim.safetensors")
    assert all(torch.equal(given[name], tensor) for name, tensor in first.victim.ensemble.state(0).items())
    assert np.array_equal(first.split.records(0, Role.TRAIN), np.load(tmp_path / "members.npz")["members"])


def test_outputs_alone_can_be_audited_and_are_never_called_adaptive(tmp_path, data):
    plain = {"kind": "lira", "copies": "none"}  # outputs alone hold no copies of records
    config = parse_study(table(data, defenses=["undefended"], attacks=["confidence", plain]))
    outcome = next(iter(run_study(config, Store(tmp_path / "store"), Recorder())))
    cases: list[tuple[SignalLayout, str]] = [("disjoint", "confidence"), ("shared", "lira")]
    for layout, attack in cases:
        seen = outcome.signals[layout]
        np.savez(tmp_path / "signals.npz", logits=seen.logits, labels=seen.labels, roles=seen.roles)
        results, _ = api.audit_outputs(tmp_path / "signals.npz", "ten", tmp_path / "audit")
        jsonschema.validate(results, results_schema())
        run = results["runs"][0]
        assert run["attacks"][attack]["auc"] == pytest.approx(outcome.report[attack].measure(METRICS["auc"]).value)
        assert not run["certificate"]["adaptive"]
        assert any("was not run" in note for note in map(shown, results["notes"]))


def test_a_score_file_takes_the_place_of_the_defenders_scores(tmp_path, data):
    study = table(data, attacks=["confidence"], defenses=["rsw"])
    config = parse_study(study)
    outcome = list(run_study(config, Store(tmp_path / "store"), Recorder()))[-1]
    assert outcome.scores is not None
    outcome.scores.memorization.write(tmp_path / "scores.parquet")
    heard = Recorder()
    study["scores"]["file"] = str(tmp_path / "scores.parquet")
    again = list(run_study(parse_study(study), Store(tmp_path / "other"), heard))[-1]
    assert not any(stage.startswith("defender") for stage in heard.computed)
    for name, tensor in outcome.victim.ensemble.state(0).items():
        assert torch.equal(tensor, again.victim.ensemble.state(0)[name])


def test_weights_of_another_architecture_are_refused(tmp_path, data):
    study, _ = given_model(tmp_path, data)
    study["model"] = {"kind": "fc", "hidden": [24, 11]}
    with pytest.raises(InputError, match="another architecture"):
        prune_model(parse_study(study), "rsw", Store(tmp_path / "store"), Recorder())

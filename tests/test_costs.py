"""What runs tell of their cost, confidence along the rounds and privacy in theory; reference models by arm."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from sklearn.metrics import roc_auc_score

from small_study import table, without_times, write_data
from test_workers import SMALL
from wemem import api
from wemem.config.parse import parse_study
from wemem.defenses import DPSGD, PPB, SlidingWindow, chain
from wemem.pipeline import peak_memory
from wemem.pipeline.peak_memory import peak_mib, reset_peak
from wemem.pipeline.progress import Silent
from wemem.reporting.notes import PRIVACY, notes
from wemem.results.privacy import account, epsilon
from wemem.results.schema import results_schema
from wemem.store.store import Store
from wemem.study.outcome import Outcome
from wemem.study.run import run_study

pytestmark = pytest.mark.slow


class Begun(Silent):
    """Stages that were computed."""

    def __init__(self):
        self.last, self.computed = "", list[str]()

    def begin(self, stage: str, work: float) -> None:
        self.last = stage

    def end(self, *, stored: bool) -> None:
        self.computed += [] if stored else [self.last]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("costs")


@pytest.fixture(scope="module")
def study(folder: Path) -> dict[str, Any]:
    defenses = [
        "undefended", {"kind": "oosd", "teachers": 2, "held_out": 1, "references": 18}, {"kind": "dpsgd", "noise": 1.0},
    ]  # fmt: skip
    small = {**SMALL, "split": {"shadows": 1, "references": 16}}
    return table(write_data(folder), **small, attacks=["confidence", "lira"], defenses=defenses)


@pytest.fixture(scope="module")
def told(study: dict[str, Any], folder: Path) -> dict[str, Any]:
    return api.run(parse_study(study), folder / "out")


@pytest.fixture(scope="module")
def outcomes(told: dict[str, Any], study: dict[str, Any], folder: Path) -> list[Outcome]:
    return list(run_study(parse_study(study), Store(folder / ".store"), Silent()))


def by_label(told: dict[str, Any]) -> dict[str, Any]:
    return {run["label"]: run for run in told["runs"]}


def test_results_are_of_the_schema(told, folder):
    Draft202012Validator(results_schema()).validate(told)
    assert json.loads((folder / "out/results.json").read_text()) == told


def test_overhead_is_fine_tuning_and_teachers_less_undefended_fine_tuning(told):
    runs = by_label(told)
    plain = runs["undefended"]["seconds"]["finetune"]
    for label in ("undefended", "oosd", "dpsgd"):
        seconds = runs[label]["seconds"]
        assert seconds["defense_overhead"] == pytest.approx(seconds["finetune"] + seconds["teachers"] - plain)
        assert (seconds["teachers"] > 0) is (label == "oosd")
    assert runs["dense"]["seconds"]["teachers"] == 0


def test_confidence_along_the_rounds_is_that_of_train_against_audited_records(told, outcomes):
    for run, outcome in zip(told["runs"][1:], outcomes[1:], strict=True):
        seen = outcome.signals["disjoint"]
        z = seen.logits[0].astype(np.float64)
        confidence = np.take_along_axis(z, seen.labels[:, None], 1)[:, 0] - np.log(np.exp(z).sum(-1))
        judged = (seen.roles[0] == 1) | (seen.roles[0] == 3)
        expected = roc_auc_score(seen.roles[0, judged] == 1, confidence[judged])
        assert run["rounds"][-1]["confidence_auc"] == pytest.approx(expected, abs=1e-4)


def test_an_arm_is_attacked_by_as_many_reference_models_as_it_names_and_the_dense_model_by_the_most(told):
    used = {label: run["attacks"]["lira"]["reference_models"] for label, run in by_label(told).items()}
    assert used == {"dense": 18, "undefended": 16, "oosd": 18, "dpsgd": 16}
    assert {label: run["certificate"]["models"] for label, run in by_label(told).items()} == {
        label: 1 + count for label, count in used.items()
    }
    assert all(run["attacks"]["lira"]["adaptive"] for run in told["runs"])


def test_more_references_of_one_arm_leave_all_that_the_others_stored(study, told, folder):
    heard = Begun()
    more = study | {"defenses": [study["defenses"][0], {"kind": "ppb", "references": 20}, study["defenses"][2]]}
    again = api.run(parse_study(more), folder / "more", folder / ".store", heard)
    first, second = by_label(without_times(told)), by_label(without_times(again))
    assert all(first[label] == second[label] for label in ("undefended", "dpsgd"))
    assert not [stage for stage in heard.computed if "undefended" in stage or "dpsgd" in stage]


def test_steps_of_dp_sgd_are_those_that_the_victim_took(told, study, outcomes):
    privacy, n = by_label(told)["dpsgd"]["privacy"], 180
    # two rounds of one epoch: 180 records in batches of 64
    assert privacy["steps"] == 2 * 3
    assert privacy["sample_rate"] == pytest.approx(64 / n)
    assert privacy["delta"] == pytest.approx(n**-1.1)
    assert privacy["covers"] == "victim_fine_tuning"
    assert privacy["epsilon"] == pytest.approx(epsilon(1.0, 64 / n, 6, n**-1.1))
    assert [run["label"] for run in told["runs"] if "privacy" in run] == ["dpsgd"]
    assert any(note.startswith("dpsgd, 60 % sparsity: nominal ε ") for note in notes(told))


def test_privacy_is_accounted_for_in_chains_and_for_nothing_else():
    assert account(PPB(), 100, 10, 5) is None
    alone, chained = (account(d, 100, 10, 5) for d in (DPSGD(), chain(SlidingWindow(), DPSGD())))
    assert alone == chained
    none = account(DPSGD(noise=0.0), 100, 200, 5)
    assert none is not None
    assert (none["epsilon"], none["sample_rate"]) == (None, 1.0)
    assert none["note"] == "no_noise"
    assert PRIVACY[none["note"]] == "without noise there is no privacy guarantee"


def test_peak_memory_is_measured_where_the_system_tells(told, tmp_path, monkeypatch):
    if not reset_peak():
        assert all(run["peak_memory_mib"] is None for run in told["runs"])
        pytest.skip("this system does not tell")
    held = np.ones(2**25)  # 256 MiB
    peak = peak_mib()
    assert peak is not None
    del held
    assert reset_peak()
    after = peak_mib()
    assert after is not None
    assert after < peak - 200
    assert all((run["peak_memory_mib"] is None) is (run["label"] == "dense") for run in told["runs"])
    monkeypatch.setattr(peak_memory, "CLEAR", tmp_path / "no/such/file")
    monkeypatch.setattr(peak_memory, "STATUS", tmp_path / "no/such/file")
    assert not reset_peak()
    assert peak_mib() is None

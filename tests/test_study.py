"""A study in a folder: what its files say, what is reused, and what is left when something fails."""

import errno
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors import SafetensorError

from small_study import RECORDS, table, without_times, write_data
from wemem import api
from wemem.auditing.report import run_attacks
from wemem.config.attack_entries import make_attacks
from wemem.config.parse import parse_study
from wemem.errors import InputError
from wemem.exporting import checkpoint as weights_module
from wemem.metrics.registry import METRICS
from wemem.pipeline.progress import Silent
from wemem.results.build import study_results
from wemem.results.schema import results_schema
from wemem.signals import SignalLayout, Signals
from wemem.store.store import Store
from wemem.study.outcome import Outcome
from wemem.study.run import run_study
from wemem.testing import planted

pytestmark = pytest.mark.slow


class Heard(Silent):
    """The stages that were begun, with their work, and the plan."""

    def __init__(self):
        self.planned = 0.0
        self.begun: list[tuple[str, float]] = []
        self.stored: list[bool] = []

    def plan(self, work: float) -> None:
        self.planned = work

    def begin(self, stage: str, work: float) -> None:
        self.begun.append((stage, work))

    def end(self, *, stored: bool) -> None:
        self.stored.append(stored)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def study(folder: Path) -> dict[str, Any]:
    defenses = ["undefended", "rsw", {"kind": "rsw", "width": 10, "label": "rsw of ten"}]
    return table(write_data(folder), seeds=[3, 4], attacks=["confidence", "rmia"], defenses=defenses)


@pytest.fixture(scope="module")
def heard() -> Heard:
    return Heard()


@pytest.fixture(scope="module")
def outcomes(study: dict[str, Any], folder: Path, heard: Heard) -> list[Outcome]:
    return list(run_study(parse_study(study), Store(folder / "store"), heard))


@pytest.fixture(scope="module")
def told(study: dict[str, Any], folder: Path, outcomes: list[Outcome]) -> dict[str, Any]:
    return api.run(parse_study(study), folder / "out", folder / "store")


def test_every_audited_record_has_one_row_for_each_run(told, folder, outcomes):
    samples = pq.read_table(folder / "out/per_sample.parquet").to_pylist()
    counted = Counter((row["label"], row["seed"], row["record"]) for row in samples)
    expected = {(o.label, o.seed, int(i)) for o in outcomes for i in o.split.audited(0)}
    assert counted == Counter(expected)
    members = {(o.label, o.seed): set(o.split.records(0, 1).tolist()) for o in outcomes}
    assert all(row["member"] == (row["record"] in members[row["label"], row["seed"]]) for row in samples)
    assert all(0 <= row["confidence_probability"] <= 1 for row in samples)
    for own in members:
        ranks = [row["risk_rank"] for row in samples if (row["label"], row["seed"]) == own]
        assert min(ranks) == 1
        assert max(ranks) <= len(ranks)


def test_calls_beside_the_scores_give_the_balanced_accuracy(told, folder):
    samples = pq.read_table(folder / "out/per_sample.parquet").to_pylist()
    for run in told["runs"]:
        own = [row for row in samples if (row["label"], row["seed"]) == (run["label"], run["seed"])]
        for name, measured in run["attacks"].items():
            shares = [
                np.mean([r[f"{name}_called"] == r["member"] for r in own if r["member"] is t]) for t in (True, False)
            ]
            assert np.mean(shares) == pytest.approx(measured["balanced_accuracy"])


def test_balanced_accuracy_is_that_of_the_best_shadow_thresholds(told, outcomes):
    """The whole confidence attack by hand: per class the threshold that is best on the shadows, then the victim."""
    for run, outcome in zip(told["runs"], outcomes, strict=True):
        seen = outcome.signals["disjoint"]
        z = seen.logits.astype(np.float64)
        confidence = np.take_along_axis(z, seen.labels[None, :, None], 2)[..., 0] - np.log(np.exp(z).sum(-1))
        threshold = outcome.report["confidence"].output.threshold
        rows = seen.audited(0)
        for label in range(seen.classes):
            (chosen,) = np.unique(threshold[seen.labels[rows] == label])
            own = [(k, i) for k in (1, 2) for i in seen.audited(k) if seen.labels[i] == label]
            score = np.array([confidence[k, i] for k, i in own])
            member = np.array([seen.roles[k, i] == 1 for k, i in own])

            def balanced(t: float, score: np.ndarray = score, member: np.ndarray = member) -> float:
                return float((score[member] >= t).mean() + (score[~member] < t).mean()) / 2

            assert balanced(chosen - 1e-9) >= max(balanced(t) for t in score) - 1e-9
        calls, member = confidence[0, rows] >= threshold - 1e-9, seen.roles[0, rows] == 1
        assert run["attacks"]["confidence"]["balanced_accuracy"] == pytest.approx(
            (calls[member].mean() + (~calls[~member]).mean()) / 2, abs=1e-12
        )


def test_accuracies_are_those_of_the_victim_on_its_own_records(told, outcomes):
    for run, outcome in zip(told["runs"], outcomes, strict=True):
        seen = outcome.signals["disjoint"]
        right = seen.logits[0].argmax(1) == seen.labels
        for name, role in (("train", 1), ("dev", 2), ("test", 3)):
            assert run["accuracy"][name] == pytest.approx(right[seen.roles[0] == role].mean())
        assert run["accuracy"]["test_records"] == (seen.roles[0] == 3).sum()


def test_no_shadow_uses_a_record_of_the_victim(outcomes):
    for outcome in outcomes:
        roles = outcome.split.roles
        assert not ((roles[0] != 0) & (roles[1:] != 0).any(axis=0)).any()
        assert len(roles) == 3
    assert not np.array_equal(outcomes[0].split.roles, outcomes[-1].split.roles)


def test_stored_stages_keep_the_seconds_they_took(told, study, folder):
    again = api.run(parse_study(study), folder / "again", folder / "store")
    assert again == told
    assert all(run["seconds"]["attacks"] > 0 for run in told["runs"])


def test_all_work_is_planned(outcomes, heard):
    assert not any(heard.stored)
    assert heard.planned == pytest.approx(sum(work for _, work in heard.begun), rel=0.05)


def test_another_seed_or_attack_leaves_what_is_there(study, folder, outcomes):
    heard = Heard()
    more = study | {"seeds": [4, 5], "attacks": ["confidence", "rmia", "entropy"], "name": "more"}
    list(run_study(parse_study(more), Store(folder / "store"), heard))
    computed = [stage for (stage, _), stored in zip(heard.begun, heard.stored, strict=True) if not stored]
    assert [stage for stage in computed if "seed 5" not in stage and not stage.startswith("entropy on")] == []


def test_what_a_run_meets_again_is_told_once(study, tmp_path):
    heard = Heard()
    twice = study | {"seeds": [3], "attacks": ["confidence"], "defenses": ["rsw", {"kind": "rsw", "label": "again"}]}
    first, second = list(run_study(parse_study(twice), Store(tmp_path / "store"), heard))[1:]
    assert first.report["confidence"].measure(METRICS["auc"]) == second.report["confidence"].measure(METRICS["auc"])
    assert [stage for (stage, _), stored in zip(heard.begun, heard.stored, strict=True) if stored] == [
        "prune under again"
    ]


def test_name_label_and_order_of_defenses_do_not_compute_again(study, folder, outcomes):
    heard = Heard()
    other = study | {"name": "other", "defenses": [{"kind": "rsw", "label": "window"}, "undefended"]}
    list(run_study(parse_study(other), Store(folder / "store"), heard))
    assert all(heard.stored)


def test_other_bytes_of_the_data_meet_nothing(study, folder, tmp_path, outcomes):
    path = write_data(tmp_path)
    with np.load(path) as arrays:
        x, y = arrays["x"], arrays["y"]
    x[RECORDS - 1, 0] = np.nextafter(x[RECORDS - 1, 0], np.float32(9))
    np.savez(path, x=x, y=y)
    heard = Heard()
    list(run_study(parse_study(study | {"seeds": [3], "data": {"source": str(path)}}), Store(folder / "store"), heard))
    assert not any(heard.stored)


def test_models_have_names_that_cannot_collide(told, folder):
    names = {path.name for path in (folder / "out/models").iterdir()}
    assert {f"dense-seed{seed}.safetensors" for seed in (3, 4)} <= names
    assert {f"rsw_of_ten-sparsity0.6-seed{seed}.masks.safetensors" for seed in (3, 4)} <= names
    assert len(names) == 2 * (1 + 2 * 3)


def test_unknown_correlation_of_scores_is_null(study, outcomes):
    config = parse_study(study)
    first = outcomes[0]
    assert first.scores is not None
    unknown = replace(first, scores=replace(first.scores, halves_correlation=float("nan")))
    made = study_results(config, config.data.load(), [unknown])
    assert made["scores"][0]["halves_correlation"] is None
    jsonschema.validate(json.loads(json.dumps(made, allow_nan=False)), results_schema())


@pytest.mark.parametrize("label", ["disjoint", "shared"])
def test_models_that_answer_everything_alike_leak_nothing(label: SignalLayout):
    """Every attack on outputs that are the same for all records is at chance exactly."""
    seen = planted.disjoint(0.0, records=300) if label == "disjoint" else planted.shared(0.0, pool=120, outside=300)
    blank = Signals(
        np.zeros_like(seen.logits), np.zeros_like(seen.labels), seen.roles, seen.records, seen.layout,
        seen.provenance, {name: np.ones_like(array) for name, array in seen.extras.items()},
        masks={layer: np.ones_like(mask) for layer, mask in (seen.masks or {}).items()},
    )  # fmt: skip
    slow = ("nn", "nn_top3", "nn_class", "samia")
    quick = {
        name: attack for name, attack in make_attacks("all").items() if attack.layout == label and name not in slow
    }
    for result in run_attacks({label: blank}, quick).results:
        assert result.measure(METRICS["auc"]).value == 0.5, result.name
        assert result.measure(METRICS["balanced_accuracy"]).value == 0.5, result.name


def test_what_fails_late_leaves_no_folder(study, tmp_path):
    diverging = {"finetune": {"epochs": 1, "batch_size": 8, "learning_rate": 1e30}}
    with pytest.raises(InputError, match=r"diverged|finite"):
        api.run(parse_study(study | diverging), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("out", ["file", "file/below/it"])
def test_folder_that_cannot_be_written_is_refused_before_any_work(out, study, tmp_path):
    (tmp_path / "file").write_text("mine")
    heard = Heard()
    with pytest.raises(InputError, match=r"cannot write .* no folder"):
        api.run(parse_study(study), tmp_path / out, tmp_path / "store", heard)
    assert not heard.begun
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(("content", "reason"), [
    ("record\n0\n", "score"),
    ("record,score\n0,0.5\n", "expected a memorization score for every training record"),
])  # fmt: skip
def test_scores_that_cannot_be_used_are_refused_before_any_training(content, reason, study, tmp_path):
    (tmp_path / "scores.csv").write_text(content)
    scores = {**study.get("scores", {}), "file": str(tmp_path / "scores.csv")}
    heard, config = Heard(), parse_study(study | {"defenses": ["rmr"], "scores": scores})
    with pytest.raises(InputError, match=reason):
        api.run(config, tmp_path / "out", tmp_path / "store", heard)
    assert not heard.begun


def fail_with(error: Exception):
    def full(*args: object, **kwargs: object) -> None:
        raise error

    return full


@pytest.mark.parametrize(
    ("module", "name", "error"),
    [
        (weights_module, "save_file", SafetensorError("I/O error: No space left on device (os error 28)")),
        (weights_module, "save_file", OSError(errno.ENOSPC, "No space left on device")),
        (pq, "write_table", OSError(errno.ENOSPC, "No space left on device")),
    ],
)
def test_full_disk_is_one_line_and_leaves_nothing_half_written(
    module, name, error, study, told, folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, name, fail_with(error))
    with pytest.raises(InputError, match=r"cannot write .*No space left on device") as refused:
        api.run(parse_study(study), tmp_path / "out", folder / "store")
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.glob("out/**/*.part"))
    assert not (tmp_path / "out/results.json").exists()


def test_results_are_written_last(study, told, folder, tmp_path, monkeypatch):
    order = []
    rename = Path.replace

    def noted(self: Path, target: Path) -> Path:
        order.append(target.name)
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", noted)
    made = api.run(parse_study(study), tmp_path / "out", folder / "store")
    assert order[-2:] == ["per_sample.parquet", "results.json"]
    assert without_times(made) == without_times(told)


def test_a_given_model_is_not_rewound(study, tmp_path):
    given = {"weights": "w.safetensors", "members": "m.csv"}
    with pytest.raises(InputError, match="initial weights are not known"):
        api.run(parse_study(study | {"victim": given, "pruning": {"rewind": "initial"}}), tmp_path / "out")

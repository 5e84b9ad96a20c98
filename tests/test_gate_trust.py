"""Attempts to get a leaking model through the gate, by mistake and on purpose, and what verify finds of them."""

import copy
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bound_results import ARMS, LEAKY, SAFE, bound_folder, edit
from results_example import as_version_1, make_results
from wemem import cli
from wemem.errors import InputError
from wemem.results.combine import read_sources
from wemem.results.gate import Limits, check_folder
from wemem.results.read import read_results
from wemem.results.reservations import NAMES
from wemem.results.verify import verify

LIMITS = Limits(max_tpr=0.1)


def ended(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(sys, "argv", ["wemem", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code


def names(folder: Path, limits: Limits = LIMITS, **given: Any) -> list[str]:
    return [one.name for one in check_folder(folder, limits, **given).reservations]


@pytest.fixture
def safe(tmp_path: Path) -> Path:
    return bound_folder(tmp_path / "safe")


@pytest.fixture
def leaky(tmp_path: Path) -> Path:
    return bound_folder(tmp_path / "leaky", {"dense": LEAKY, "rsw": SAFE, "swmr": LEAKY})


# The limit cases: an honest study passes and verifies, a leaking one fails


def test_an_honest_study_passes_without_a_reservation_and_a_leaking_one_fails(safe, leaky):
    result = check_folder(safe, LIMITS)
    assert result.passed
    assert result.reservations == ()
    assert not check_folder(leaky, LIMITS).passed
    assert check_folder(leaky, LIMITS, ["rsw"]).passed


def test_what_an_honest_study_wrote_verifies_in_every_part(safe, leaky):
    for folder in (safe, leaky):
        verified = verify(folder)
        assert verified.passed
        assert {one.subject for one in verified.findings} == {"study", "files", "runs", "rates"}


# Edited results: recomputed from the records, and refused


def lower_worst(results: dict[str, Any]) -> None:
    for run in results["runs"]:
        run["worst"]["tpr_at_0.01"].update(value=0.0, ci=[0.0, 0.001])


def lower_everything(results: dict[str, Any]) -> None:
    """Every number that a limit is held against, consistent with itself."""
    for run in results["runs"]:
        for audit in run["attacks"].values():
            audit["tpr_at_fpr"] = dict.fromkeys(audit["tpr_at_fpr"], 0.0)
            audit["tpr_at_fpr_ci"] = {fpr: [0.0, 0.001] for fpr in audit["tpr_at_fpr_ci"]}
        for name in run["worst"]:
            if name.startswith("tpr"):
                run["worst"][name].update(value=0.0, ci=[0.0, 0.001])


def name_another_attack(results: dict[str, Any]) -> None:
    for run in results["runs"]:
        weak = run["attacks"]["confidence"]
        run["worst"]["tpr_at_0.01"] = {
            "attack": "confidence", "value": weak["tpr_at_fpr"]["0.01"], "ci": weak["tpr_at_fpr_ci"]["0.01"],
        }  # fmt: skip


def call_it_dense(results: dict[str, Any]) -> None:
    for run in results["runs"]:
        run["defense"] = "dense"


def call_its_label_dense(results: dict[str, Any]) -> None:
    results["runs"] = [run for run in results["runs"] if run["label"] != "dense"]
    for run in results["runs"]:
        if run["label"] == "swmr":
            run["label"] = "dense"


def copy_the_safe_seed(results: dict[str, Any]) -> None:
    results["planned"]["seeds"] = [0, 2]
    extra = [{**copy.deepcopy(run), "seed": 2} for run in results["runs"] if run["seed"] == 0]
    for run in extra:
        next(iter(run["attacks"].values()))["tpr_at_fpr"]["0.1"] += 1e-12
    results["runs"] += extra


def drop_the_strongest_attack(results: dict[str, Any]) -> None:
    del results["planned"]["attacks"]["rmia"]
    for run in results["runs"]:
        del run["attacks"]["rmia"]


def swap_two_arms(results: dict[str, Any]) -> None:
    for run in results["runs"]:
        run["label"] = {"rsw": "swmr", "swmr": "rsw"}.get(run["label"], run["label"])
        run["defense"] = run["label"]


def raise_accuracy(results: dict[str, Any]) -> None:
    for run in results["runs"]:
        run["accuracy"].update(test=0.99, test_ci=[0.98, 0.995])


def pretend_more_non_members(results: dict[str, Any]) -> None:
    for run in results["runs"]:
        for audit in run["attacks"].values():
            audit.update(nonmembers=100_000, smallest_fpr=1e-5)


def call_adaptive_what_differs(results: dict[str, Any]) -> None:
    for run in results["runs"]:
        run["certificate"].update(adaptive=True, adversary_recipe_fingerprints=["a1", "b2"])


def call_adaptive_what_is_unknown(results: dict[str, Any]) -> None:
    unknown = {"victim_recipe_fingerprint": "unknown", "adversary_recipe_fingerprints": ["unknown"]}
    for run in results["runs"]:
        run["certificate"].update(adaptive=True, **unknown)


def show_one_model_file_for_two_arms(results: dict[str, Any]) -> None:
    for run in results["runs"]:
        run["model_file"] = "models/rsw-seed0.safetensors"


@pytest.mark.parametrize("change", [
    call_adaptive_what_differs, call_adaptive_what_is_unknown, show_one_model_file_for_two_arms,
    lower_worst, lower_everything, name_another_attack, call_it_dense, call_its_label_dense, copy_the_safe_seed,
    drop_the_strongest_attack, swap_two_arms, raise_accuracy, pretend_more_non_members,
    lambda results: results["study"].update(name="another"),
    lambda results: results["runs"][-1]["worst"]["tpr_at_0.01"].update(value=0.9, ci=[0.0, 0.001]),
    lambda results: results["runs"][-1]["accuracy"].update(test=0.1, test_ci=[0.9, 0.95]),
])  # fmt: skip
def test_edited_results_are_refused_and_no_waiver_helps(change: Callable[[Any], None], leaky, monkeypatch, capsys):
    edit(leaky, change)
    with pytest.raises(InputError):
        check_folder(leaky, LIMITS, waivers=list(NAMES))
    waivers = [part for name in NAMES for part in ("--waive", name)]
    assert ended(["gate", str(leaky), "--max-tpr", "0.1", *waivers], monkeypatch) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_records_edited_with_the_results_are_found_by_their_hash(leaky):
    """Scores of the leaking arm are replaced by those of the safe one, and the numbers to match."""
    table = pq.read_table(leaky / "per_sample.parquet")
    columns = {name: table[name].to_numpy(zero_copy_only=False).copy() for name in table.column_names}
    of = {label: columns["label"] == label for label in ("rsw", "swmr")}
    for name in columns:
        if name not in ("label", "seed", "sparsity"):
            columns[name][of["swmr"]] = columns[name][of["rsw"]]
    pq.write_table(pa.table(columns), leaky / "per_sample.parquet")

    def match(results: dict[str, Any]) -> None:
        safe_runs = {run["seed"]: run for run in results["runs"] if run["label"] == "rsw"}
        for run in results["runs"]:
            if run["label"] == "swmr":
                run.update({name: safe_runs[run["seed"]][name] for name in ("attacks", "worst", "accuracy")})

    edit(leaky, match)
    with pytest.raises(InputError, match=r"per_sample\.parquet is not the file that was audited"):
        check_folder(leaky, LIMITS, waivers=list(NAMES))


def test_a_report_of_records_that_were_changed_is_refused(safe):
    read_sources([safe])
    table = pq.read_table(safe / "per_sample.parquet")
    pq.write_table(
        table.set_column(table.column_names.index("lira"), "lira", table["rmia"]), safe / "per_sample.parquet"
    )
    with pytest.raises(InputError, match="got another file"):
        read_sources([safe])


# Honest mistakes: each a reservation that fails unless it is waived by name


@pytest.mark.parametrize(("given", "name"), [
    ({"adaptive": False}, "non-adaptive"),
    ({"attacks": ("confidence", "lira")}, "missing-attacks"),
    ({"attacks": ("confidence", "nn", "rmia")}, "missing-attacks"),
    ({"references": 4}, "few-references"),
    ({"members": 40}, "few-records"),
    ({"altered": True}, "altered-answers"),
])  # fmt: skip
def test_an_audit_that_may_have_missed_a_leak_fails_with_its_reason_unless_waived(given, name, tmp_path):
    folder = bound_folder(tmp_path, **given)
    loose = Limits(max_tpr=0.9)
    assert set(names(folder, loose)) == {name}
    assert not check_folder(folder, loose).passed
    assert check_folder(folder, loose, waivers=[name]).passed
    others = [other for other in NAMES if other != name]
    assert not check_folder(folder, loose, waivers=others).passed


def test_a_false_positive_rate_that_the_records_cannot_show_fails(safe, tmp_path):
    limits = Limits(max_tpr=0.9, at_fpr=0.001)
    assert names(safe, limits) == []
    few = bound_folder(tmp_path / "few", nonmembers=300)
    assert set(names(few, limits)) == {"unsupported-fpr"}
    assert names(few, Limits(max_auc=0.9)) == []


def test_another_model_file_beside_old_results_fails(safe):
    shutil.copy(safe / "models/dense-seed0.safetensors", safe / "models/rsw-seed0.safetensors")
    assert names(safe) == ["other-file"]
    assert not check_folder(safe, LIMITS).passed
    (safe / "models/swmr-seed0.safetensors").unlink()
    assert names(safe) == ["other-file", "other-file"]
    assert check_folder(safe, LIMITS, waivers=["other-file"]).passed


def test_the_file_that_ships_must_be_the_one_that_was_audited(safe):
    own, other = (safe / f"models/{label}-seed0.safetensors" for label in ("rsw", "swmr"))
    assert names(safe, labels=["rsw"], shipped=own) == []
    assert names(safe, labels=["rsw"], shipped=other) == ["other-file"]
    with pytest.raises(InputError):
        check_folder(safe, LIMITS, ["rsw"], shipped=safe / "absent.safetensors")


def test_a_part_of_the_planned_runs_fails(leaky):
    def drop(results: dict[str, Any]) -> None:
        results["runs"] = [run for run in results["runs"] if run["label"] != "swmr"]

    edit(leaky, drop)
    assert set(names(leaky)) == {"partial"}
    assert check_folder(leaky, LIMITS, waivers=["partial"]).passed


def test_attacks_that_the_suite_adds_for_altered_answers_need_no_plan(tmp_path):
    folder = bound_folder(tmp_path, altered=True)

    def plan_fewer(results: dict[str, Any]) -> None:
        del results["planned"]["attacks"]["confidence"]
        results["runs"] = [{**run, "altered_answers": True} for run in results["runs"]]

    edit(folder, plan_fewer)
    assert set(names(folder, Limits(max_tpr=0.9))) == {"altered-answers"}
    edit(folder, lambda results: [run.update(altered_answers=False) for run in results["runs"]])
    with pytest.raises(InputError, match="was not planned"):
        check_folder(folder, LIMITS)


def drop_swmr(results: dict[str, Any]) -> None:
    results["runs"] = [run for run in results["runs"] if run["label"] != "swmr"]
    del results["planned"]["runs"]["swmr"]
    results["files"] = {name: digest for name, digest in results["files"].items() if "swmr" not in name}


def drop_seed_1(results: dict[str, Any]) -> None:
    results["runs"] = [run for run in results["runs"] if run["seed"] == 0]
    results["planned"]["seeds"] = [0]


def drop_confidence(results: dict[str, Any]) -> None:
    for run in [*results["runs"], results["planned"]]:
        del run["attacks"]["confidence"]


@pytest.mark.parametrize("change", [drop_swmr, drop_seed_1, drop_confidence])
def test_a_run_or_an_attack_that_left_records_cannot_be_dropped_with_its_plan(change, tmp_path):
    folder = bound_folder(tmp_path, dict.fromkeys(ARMS, LEAKY), seeds=(0, 1))
    edit(folder, change)
    found = [one.text for one in verify(folder).findings if one.subject == "runs" and not one.passed]
    assert found and all("is not among the results" in text for text in found)  # noqa: PT018


@pytest.mark.parametrize("change", [
    lambda results: results["files"].clear() or [run.update(model_file=None) for run in results["runs"]],
    lambda results: results["files"].pop("per_sample.parquet"),
])  # fmt: skip
def test_records_that_no_hash_binds_to_the_results_do_not_count_as_verified(change, safe):
    edit(safe, change)
    assert names(safe) == ["unverified"]
    assert not check_folder(safe, LIMITS).passed


def test_results_of_version_1_beside_records_do_not_count_as_verified(safe):
    path = safe / "results.json"
    path.write_text(json.dumps(as_version_1(json.loads(path.read_text()))))
    assert names(safe) == ["unverified"]


def test_results_whose_rates_cannot_be_computed_anew_fail(safe, tmp_path):
    (safe / "per_sample.parquet").unlink()
    assert set(names(safe)) == {"unverified"}
    old = tmp_path / "old"
    old.mkdir()
    (old / "results.json").write_text(json.dumps(as_version_1(make_results())))
    assert names(old, Limits(max_tpr=0.9), labels=["rsw"]) == ["unverified", "few-references"]
    assert not verify(old).passed


def test_results_of_version_1_are_read_under_the_names_of_version_2(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(as_version_1(make_results())))
    run = read_results(tmp_path)["runs"][0]
    assert run["certificate"]["victim_recipe_fingerprint"] == "a1"


# The command


def test_waivers_are_printed_and_stored_and_an_unknown_one_is_refused(tmp_path, monkeypatch, capsys):
    folder = str(bound_folder(tmp_path / "results", adaptive=False))
    command = ["gate", folder, "--max-tpr", "0.1"]
    assert ended(command, monkeypatch) == 1
    assert "--waive non-adaptive" in capsys.readouterr().out
    assert not (tmp_path / "results/gate.json").exists()
    assert ended([*command, "--waive", "non-adaptive"], monkeypatch) == 0
    assert "waived: rsw: " in capsys.readouterr().out
    stored = json.loads((tmp_path / "results/gate.json").read_text())
    assert (stored["passed"], list(stored["waivers"])) == (True, ["non-adaptive"])
    assert {one["waived"] for one in stored["folders"][0]["reservations"]} == {True}
    assert ended([*command, "--waive", "adaptive"], monkeypatch) == 2
    assert "did you mean 'non-adaptive'" in capsys.readouterr().err


def test_a_waiver_that_cannot_be_stored_is_no_waiver(tmp_path, monkeypatch, capsys):
    folder = bound_folder(tmp_path / "results", adaptive=False)
    (folder / "gate.json").mkdir()
    assert ended(["gate", str(folder), "--max-tpr", "0.1", "--waive", "non-adaptive"], monkeypatch) == 2
    assert "cannot write" in capsys.readouterr().err


def test_json_and_junit_say_what_the_console_says(leaky, tmp_path, monkeypatch):
    command = ["gate", str(leaky), "--max-tpr", "0.1", "--waive", "few-records"]
    files = ["--json", str(tmp_path / "gate.json"), "--junit", str(tmp_path / "gate.xml")]
    assert ended([*command, *files], monkeypatch) == 1
    content = json.loads((tmp_path / "gate.json").read_text())
    assert content["schema"] == "wemem.gate/1"
    assert not content["passed"]
    suite = ElementTree.parse(tmp_path / "gate.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("2", "1", "0")
    (failure,) = suite.iter("failure")
    assert str(failure.get("message")).startswith("failed: swmr")


def test_hostile_labels_leave_the_xml_well_formed(tmp_path, monkeypatch):
    label = "<b>\x1b[31m&\"' ]]> \x00"
    folder = bound_folder(tmp_path / "results", {"dense": SAFE, "x": SAFE})

    def rename(results: dict[str, Any]) -> None:
        results["planned"]["runs"] = {"dense": 1, label: 1}
        results["runs"][1]["label"] = label

    edit(folder, rename)
    (folder / "per_sample.parquet").unlink()
    arguments = ["gate", str(folder), "--max-tpr", "0.5", "--junit", str(tmp_path / "gate.xml")]
    assert ended(arguments, monkeypatch) == 1
    assert r"<b>\x1b[31m&" in str(ElementTree.parse(tmp_path / "gate.xml").getroot()[0][0].get("name"))


def test_verify_ends_with_1_where_something_does_not_hold(safe, leaky, monkeypatch, capsys):
    assert ended(["verify", str(safe)], monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("results.json has SHA-256 ")
    assert all(line.startswith("passed: ") for line in lines[1:])
    (leaky / "models/rsw-seed0.safetensors").write_bytes(b"another")
    assert ended(["verify", str(safe), str(leaky)], monkeypatch) == 1
    assert "failed: models/rsw-seed0.safetensors is not the file that was audited" in capsys.readouterr().out


def test_paths_that_leave_the_folder_are_never_followed(safe, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x")

    def leave(results: dict[str, Any]) -> None:
        results["files"]["../secret"] = "0" * 64

    edit(safe, leave)
    assert [one.text for one in verify(safe).findings if not one.passed] == ["../secret is outside of the folder"]
    bound_folder(safe)  # a new run removes what the old results list
    assert secret.exists()

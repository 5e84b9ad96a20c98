"""Mistakes at the gate: edits that no record contradicts, files of an earlier gate, limits and options that check
nothing, and a mean over seeds that hides the model to release."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bound_results import LEAKY, SAFE, bound_folder, edit
from wemem import cli
from wemem.errors import InputError
from wemem.files.documents import parse_json
from wemem.pipeline.progress import Silent
from wemem.results.content_hash import MEASURED_ANEW
from wemem.results.folder import no_results_of_before, remove_old_results, require_elsewhere
from wemem.results.gate import Limits, check_folder
from wemem.results.reservations import NAMES
from wemem.results.verify import verify

LIMITS = Limits(max_tpr=0.1)


def ended(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(sys, "argv", ["wemem", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code


@pytest.fixture(scope="module")
def safe(tmp_path_factory) -> Path:
    """Only tests that change no file share it."""
    return bound_folder(tmp_path_factory.mktemp("safe"))


# Edits that follow from no record


def add_references(results: dict[str, Any]) -> None:
    for run in results["runs"]:
        for audit in run["attacks"].values():
            audit["reference_models"] = 64


def call_adaptive(results: dict[str, Any]) -> None:
    for run in results["runs"]:
        run["certificate"]["adaptive"] = True
        for audit in run["attacks"].values():
            audit["adaptive"] = True


def call_another_attack_lira(results: dict[str, Any]) -> None:
    results["planned"]["attacks"]["confidence"] = "lira"


def drop_the_notes(results: dict[str, Any]) -> None:
    results["notes"].clear()


@pytest.mark.parametrize(("given", "change"), [
    ({"references": 4}, add_references),
    ({"adaptive": False}, call_adaptive),
    ({"attacks": ("confidence", "rmia")}, call_another_attack_lira),
    ({}, drop_the_notes),
])  # fmt: skip
def test_an_edit_of_what_no_record_shows_is_refused_and_no_waiver_helps(given, change, tmp_path):
    folder = bound_folder(tmp_path, **given)
    edit(folder, change, rehash=False)
    with pytest.raises(InputError, match="changed after it was written"):
        check_folder(folder, LIMITS, waivers=list(NAMES))


def test_any_single_number_or_word_of_the_results_is_bound(tmp_path):
    folder, rng = bound_folder(tmp_path, {"dense": SAFE, "swmr": LEAKY}), np.random.default_rng(77)
    text = (folder / "results.json").read_text()
    places = [path for path in leaves(json.loads(text)) if not MEASURED_ANEW.intersection(path)]
    for path in (places[i] for i in rng.choice(len(places), 40, replace=False)):
        edit(folder, lambda results, path=path: set_leaf(results, path, rng), rehash=False)
        with pytest.raises(InputError):
            verify(folder)
        (folder / "results.json").write_text(text)
    assert not check_folder(folder, LIMITS).passed


def leaves(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    return [at] if parts is None else [place for key, part in parts for place in leaves(part, (*at, key))]


def set_leaf(value: Any, path: tuple[Any, ...], rng: np.random.Generator) -> None:
    for key in path[:-1]:
        value = value[key]
    old = value[path[-1]]
    value[path[-1]] = (
        not old if isinstance(old, bool) else old + int(rng.integers(1, 9)) if isinstance(old, int)
        else old + 0.001 if isinstance(old, float) else f"{old}x"
    )  # fmt: skip


def test_results_that_no_hash_binds_do_not_count_as_verified(tmp_path):
    folder = bound_folder(tmp_path)
    edit(folder, lambda results: results.pop("content_sha256"), rehash=False)
    assert [one.name for one in check_folder(folder, LIMITS).reservations] == ["unverified"]
    assert not verify(folder).passed


def test_a_name_twice_in_one_object_is_refused():
    with pytest.raises(InputError, match="'adaptive' twice"):
        parse_json('{"run": {"adaptive": true, "label": "x", "adaptive": false}}', "an example")


# Limits and options that check nothing


@pytest.mark.parametrize("arguments", [
    ["--max-tpr", "1"], ["--max-tpr", "5"], ["--max-tpr", "nan"], ["--max-auc", "1.0"], ["--max-tpr", "-0.1"],
    ["--max-tpr", "0.05", "--max-tpr", "0.9"], ["--max-tpr", "0.1", "--shipped", "a", "--shipped", "b"],
    ["--max-tpr", "0.05%"], ["--max-tpr", "0.1", "--at-fpr", "1"], ["--min-accuracy", "0"],
])  # fmt: skip
def test_a_limit_that_checks_nothing_is_refused(arguments, safe, monkeypatch, capsys):
    assert ended(["gate", str(safe), *arguments], monkeypatch) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_gate_without_a_limit_on_a_leak_states_that_none_was_checked(safe, monkeypatch, capsys):
    assert ended(["gate", str(safe), "--min-accuracy", "0.1"], monkeypatch) == 0
    assert "no limit on a leak" in capsys.readouterr().out


# Files of an earlier gate, and files that a gate must not replace


def test_a_gate_that_fails_or_refuses_leaves_no_earlier_outcome(tmp_path, monkeypatch):
    folder = bound_folder(tmp_path / "results", adaptive=False)
    files = [tmp_path / "gate.json", tmp_path / "gate.xml"]
    written = ["--json", str(files[0]), "--junit", str(files[1])]
    command = ["gate", str(folder), "--max-tpr", "0.1"]
    assert ended([*command, "--waive", "non-adaptive"], monkeypatch) == 0
    assert json.loads((folder / "gate.json").read_text())["passed"]
    assert ended(command, monkeypatch) == 1
    assert not (folder / "gate.json").exists()
    assert ended([*command, *written, "--waive", "non-adaptive"], monkeypatch) == 0
    edit(folder, call_adaptive, rehash=False)
    assert ended([*command, *written], monkeypatch) == 2
    assert not any(file.exists() for file in files)


@pytest.mark.parametrize("name", ["results.json", "per_sample.parquet", "models/swmr-seed0.safetensors"])
def test_a_gate_never_writes_over_the_results(name, safe, monkeypatch):
    before = (safe / name).read_bytes()
    assert ended(["gate", str(safe), "--max-tpr", "0.1", "--json", str(safe / name)], monkeypatch) == 2
    assert (safe / name).read_bytes() == before


@pytest.mark.parametrize("place", ["/dev/null", "/", "."])
def test_a_device_or_a_folder_is_never_replaced_by_a_file(place, safe, monkeypatch, capsys):
    assert ended(["gate", str(safe), "--max-tpr", "0.1", "--json", place], monkeypatch) == 2
    assert "no plain file" in capsys.readouterr().err
    assert Path("/dev/null").is_char_device()


# The model to release


def one_seed_leaks(folder: Path, seeds: int = 30) -> Path:
    """The mean over seeds stays below 25 %, and the last seed leaks nearly everything."""
    return bound_folder(
        folder, {"swmr": SAFE}, seeds=tuple(range(seeds)), leaks={seeds - 1: 4.0}, members=150, nonmembers=300
    )


def test_a_mean_over_seeds_does_not_hide_the_leak_of_the_file_to_release(tmp_path):
    folder = one_seed_leaks(tmp_path)
    limits = Limits(max_tpr=0.25)
    safe_file, leaking_file = (folder / f"models/swmr-seed{seed}.safetensors" for seed in (0, 29))
    assert check_folder(folder, limits).passed
    assert check_folder(folder, limits, shipped=safe_file).passed
    failed = [one for one in check_folder(folder, limits, shipped=leaking_file).checks if not one.passed]
    assert [one.seeds for one in failed] == [1]
    assert "of the file to release" in str(failed[0])


def test_a_waiver_for_missing_files_does_not_accept_another_file_to_release(safe, tmp_path):
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"another model")
    outcome = check_folder(safe, LIMITS, ["swmr"], list(NAMES), other)
    assert not outcome.passed
    assert "no waiver helps" in str(outcome.reservations[-1])


# A new run in an old folder


def test_removing_old_results_leaves_what_is_no_file_of_results(tmp_path):
    folder, elsewhere = bound_folder(tmp_path / "out"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / "data.npz").write_bytes(b"records")
    (elsewhere / "a").write_bytes(b"model")
    edit(folder, lambda results: results["files"].update({"data.npz": "0" * 64, "gate.json/x": "0" * 64}))
    remove_old_results(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["data.npz", "models"]
    assert not list((folder / "models").iterdir())
    (folder / "models").rmdir()
    (folder / "models").symlink_to(elsewhere)
    (folder / "results.json").write_text(json.dumps({"files": {"models/a": "0" * 64}}))
    remove_old_results(folder)
    assert (elsewhere / "a").exists()


def test_a_file_of_old_results_is_no_input_of_a_run_that_removes_them(tmp_path):
    folder = bound_folder(tmp_path)
    require_elsewhere(folder, None, tmp_path / "absent", Path(__file__))
    with pytest.raises(InputError, match="choose another --out"):
        require_elsewhere(folder, folder / "models" / ".." / "models/swmr-seed0.safetensors")


def test_earlier_results_and_their_report_are_gone_when_the_first_stage_begins(tmp_path):
    folder = bound_folder(tmp_path)
    (folder / "report.html").write_text("It may ship.")
    with no_results_of_before(folder, Silent()) as progress:
        assert (folder / "results.json").exists()  # what is refused before any stage changes nothing
        progress.begin("models", 1.0)
        assert sorted(path.name for path in folder.iterdir()) == ["models"]

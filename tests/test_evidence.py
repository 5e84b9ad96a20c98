"""A bundle of evidence: it states what was measured and what was not, and a change to any part is found."""

import json
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bound_results import LEAKY, bound_folder
from results_example import make_results
from wemem.cli.endings import run_command
from wemem.errors import InputError
from wemem.evidence.bundle import FROM_RECORDS, PARTS, _derived, _json, verify_bundle, write_bundle
from wemem.evidence.content import STATEMENT, from_results
from wemem.evidence.disclosure_form import _called, _ends
from wemem.evidence.model_card import model_card, plain
from wemem.results.combine import read_sources

HOSTILE = "<script>alert(1)</script>|[x](javascript:x)=cmd\u202e\n" + "long" * 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    arms = {"dense": 0.5, "rsw": LEAKY}
    return bound_folder(tmp_path_factory.mktemp("audit"), arms, members=120, nonmembers=300)


@pytest.fixture(scope="module")
def bundle(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evidence") / "evidence.zip"
    write_bundle(folder, path, HOSTILE, "27/11/2026 12:00:00")
    return path


def parts_of(bundle: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(bundle) as archive:
        return {part: archive.read(part) for part in archive.namelist()}


def rewritten(bundle: Path, out: Path, change: Callable[[dict[str, bytes]], Any], *, rehash: bool = False) -> Path:
    """The bundle with changed parts, with a manifest of the new hashes if ``rehash``."""
    parts = parts_of(bundle)
    change(parts)
    if rehash:
        manifest = json.loads(parts["manifest.json"])
        manifest["sha256"] = {name: sha256(parts[name]).hexdigest() for name in manifest["sha256"]}
        parts["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return out


def passes(bundle: Path) -> bool:
    return all(finding.passed for finding in verify_bundle(bundle)[1])


def test_untouched_bundle_passes_and_equal_evidence_has_equal_bytes(folder: Path, bundle: Path, tmp_path: Path):
    assert passes(bundle)
    write_bundle(folder, tmp_path / "again.zip", HOSTILE, "27/11/2026 12:00:00")
    assert (tmp_path / "again.zip").read_bytes() == bundle.read_bytes()


@pytest.mark.parametrize("part", PARTS[:-1])
@pytest.mark.parametrize("rehash", [False, True])
def test_change_of_any_part_is_found(bundle: Path, tmp_path: Path, part: str, rehash: bool):
    def change(parts: dict[str, bytes]) -> None:
        parts[part] = parts[part].replace(b"rsw", b"rmr")

    assert not passes(rewritten(bundle, tmp_path / "changed.zip", change, rehash=rehash))


def test_manifest_of_another_schema_is_refused(bundle: Path, tmp_path: Path):
    def change(parts: dict[str, bytes]) -> None:
        parts["manifest.json"] = parts["manifest.json"].replace(b"wemem.evidence/1", b"wemem.evidence/9")

    with pytest.raises(InputError, match=r"expected a manifest of wemem\.evidence/1"):
        verify_bundle(rewritten(bundle, tmp_path / "x.zip", change))


def test_number_that_was_made_smaller_contradicts_the_results(bundle: Path, tmp_path: Path):
    def change(parts: dict[str, bytes]) -> None:
        content = json.loads(parts["evidence.json"])
        content["arms"][1]["strongest"]["auc"]["value"] = 0.5
        parts["evidence.json"] = json.dumps(content).encode()

    findings = verify_bundle(rewritten(bundle, tmp_path / "x.zip", change, rehash=True))[1]
    assert "the statements of evidence.json differ from the results: arms" in [finding.text for finding in findings]


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + bytes(18), b"no zip file"])
def test_what_is_no_bundle_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    with pytest.raises(InputError):
        verify_bundle(path)


def test_part_that_unfolds_beyond_the_limit_is_refused(bundle: Path, tmp_path: Path):
    parts = parts_of(bundle)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in parts:
            archive.writestr(name, bytes(2**25) if name == "evidence.html" else parts[name])
    with pytest.raises(InputError, match="at most 16,777,216 bytes, got more"):
        verify_bundle(tmp_path / "x.zip")


def test_statement_and_hostile_names_stand_as_text(bundle: Path):
    parts = parts_of(bundle)
    page, card = parts["evidence.html"].decode(), parts["model_card.md"].decode()
    assert STATEMENT in page
    assert STATEMENT in card
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\u202e" not in page
    assert plain(HOSTILE).startswith(r"\<script\>")
    assert plain(HOSTILE).isprintable()


def test_card_has_metadata_that_yaml_reads_and_that_repeats_the_numbers(folder: Path, bundle: Path):
    content = json.loads(parts_of(bundle)["evidence.json"])
    content["arms"][1]["label"] = content["data"]["name"] = HOSTILE
    yaml = pytest.importorskip("yaml", reason="a reader of YAML")
    _, metadata, text = model_card(content).split("---\n", 2)
    card = yaml.safe_load(metadata)
    results = json.loads((folder / "results.json").read_text())
    values = {one["type"]: one["value"] for one in card["model-index"][1]["results"][0]["metrics"]}
    assert values["membership_inference_auc"] == pytest.approx(results["runs"][1]["worst"]["auc"]["value"], rel=1e-5)
    assert "<script" not in text.replace(r"\<script", "")
    assert card["library_name"] == "pytorch"


def test_lists_say_what_was_not_run():
    content = from_results(make_results(attacks=("lira",)))
    status = {row["test"]: row["status"] for row in content["coverage"]}
    assert status["membership inference"] == "executed"
    assert status["attribute inference"] == status["reconstruction attacks"] == "not run"
    assert {"name": "rmia", "reason": "not among the attacks of the study"} in content["attacks_not_run"]
    without = from_results(make_results(attacks=()))
    assert all(row["status"] != "executed" for row in without["coverage"])
    assert content["blind_baseline"]["run"] is False


def test_disclosure_form_has_the_metrics_of_its_readers(folder: Path, bundle: Path):
    form = json.loads(parts_of(bundle)["attack_results.json"])
    (name,) = [one for one in form if one.startswith("WeMem lira on rsw")]
    instance = form[name]["attack_experiment_logger"]["attack_instance_logger"]["instance_0"]
    assert {"AUC", "ACC", "FDIF01", "PDIF01", "P_HIGHER_AUC", "Advantage", "TPR@0.1", "TPR@0.01"} <= instance.keys()
    scores = read_sources([folder]).scores["rsw", 0.6, 0]
    called = scores.called["lira"]
    assert instance["TPR"] == pytest.approx(called[scores.member].mean())
    assert instance["P_HIGHER_AUC"] < 1e-6


def test_form_counts_members_at_both_ends_by_hand():
    member = np.array([False] * 5 + [True] * 5)
    ends = _ends(member, np.arange(10.0), 0.2, "02")
    assert (ends["FMAX02"], ends["FMIN02"], ends["FDIF02"]) == (1.0, 0.0, 1.0)
    called = _called(member, np.array([False] * 4 + [True] * 3 + [False] * 3))
    assert (called["TPR"], called["FPR"], called["ACC"]) == (0.4, 0.2, 0.6)
    assert called["PPV"] == pytest.approx(2 / 3)


def test_commands_write_and_verify_a_bundle_and_find_a_changed_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def ends_with(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["wemem", *arguments])
        return run_command()

    path = tmp_path / "e.zip"
    assert ends_with("evidence", str(folder), "--out", str(path), "--author", "me", "--max-tpr", "0.01") == 0
    assert STATEMENT in " ".join(capsys.readouterr().out.split())
    assert ends_with("verify", str(path)) == 0
    assert "passed: evidence.html follows from evidence.json" in capsys.readouterr().out
    content = json.loads(parts_of(path)["evidence.json"])
    assert (content["release"]["decision"], content["written"]["by"]) == ("no", "me")
    changed = rewritten(path, tmp_path / "x.zip", lambda parts: parts.update({"model_card.md": b"safe"}))
    assert ends_with("verify", str(changed)) == 1
    assert ends_with("evidence", str(folder), "--out", str(tmp_path / "e.pdf")) == 2


@pytest.mark.parametrize(("key", "change"), [
    ("exposed", lambda content: content["exposed"][-1]["records"][0].update(record=7)),
    ("subgroups", lambda content: content["subgroups"][-1]["groups"][0]["tpr"].update(value=0.0, low=0.0)),
    ("release", lambda content: content["release"]["next"].clear()),
    ("disclosure_form", lambda content: next(iter(content["disclosure_form"].values()))["metadata"].update(x=1)),
])  # fmt: skip
def test_statement_that_the_records_do_not_give_is_found_where_the_folder_is_given(
    folder: Path, bundle: Path, tmp_path: Path, key: str, change: Callable[[dict[str, Any]], Any]
):
    """A change that is consistent within the bundle, so that without the records all agrees."""

    def rendered(parts: dict[str, bytes]) -> None:
        content = json.loads(parts["evidence.json"])
        change(content)
        parts["evidence.json"] = _json(content)
        parts.update(_derived(content))

    assert all(finding.passed for finding in verify_bundle(bundle, [folder])[1])
    forged = rewritten(bundle, tmp_path / "x.zip", rendered, rehash=True)
    assert passes(forged)
    failed = [finding.text for finding in verify_bundle(forged, [folder])[1] if not finding.passed]
    assert failed == [f"{FROM_RECORDS[key]} does not follow from the records of the folder"]


def test_yes_that_the_results_do_not_allow_is_found_without_the_records(bundle: Path, tmp_path: Path):
    def change(parts: dict[str, bytes]) -> None:
        content = json.loads(parts["evidence.json"])
        assert content["release"]["decision"] == "no"
        content["release"].update(decision="yes", answer="Yes.", reservations=[])
        parts["evidence.json"] = _json(content)
        parts.update(_derived(content))

    findings = verify_bundle(rewritten(bundle, tmp_path / "x.zip", change, rehash=True))[1]
    assert "the answer does not follow from the results" in [finding.text for finding in findings if not finding.passed]

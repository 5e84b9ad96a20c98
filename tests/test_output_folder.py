"""Output directories: one command at a time, no old result beside new files, and everything bound by hashes."""

import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import wemem
from small_study import table, write_data
from wemem import api
from wemem.config.parse import parse_study
from wemem.errors import DivergedError, InputError
from wemem.files.output_folder import output_folder
from wemem.results import folder as results_folder
from wemem.results.model_files import remove_old_model
from wemem.results.verify import verify

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {
    "training": {"epochs": 1, "batch_size": 64}, "finetune": {"epochs": 1, "batch_size": 64},
    "pruning": {"rounds": 2}, "attacks": ["confidence", "entropy"], "defenses": ["undefended"],
}  # fmt: skip


class KilledError(BaseException):
    """Nobody catches it."""


def test_an_output_directory_is_held_by_one_command_at_a_time(tmp_path):
    with output_folder(tmp_path / "out") as folder:
        assert folder == tmp_path / "out"
        assert not folder.exists()
        with pytest.raises(InputError, match="no other command is writing to"), output_folder(tmp_path / "out"):
            pass
        with output_folder(tmp_path / "another"):
            pass
    assert list(tmp_path.iterdir()) == []
    with output_folder(tmp_path / "out"):
        pass


def hold(path: str, ready: Any) -> None:
    with output_folder(path):
        ready.send_bytes(b"x")
        ready.recv_bytes()


def test_a_killed_command_lets_go_of_its_directory(tmp_path):
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=hold, args=(str(tmp_path / "out"), theirs))
    process.start()
    ours.recv_bytes()
    with pytest.raises(InputError, match="no other command"), output_folder(tmp_path / "out"):
        pass
    process.kill()
    process.join()
    with output_folder(tmp_path / "out"):
        pass


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def test_what_a_run_leaves_verifies_and_a_second_run_replaces_it(data, tmp_path):
    out = tmp_path / "out"
    results = api.run(parse_study(table(data, **SMALL, seeds=[0, 1])), out)
    assert json.loads((out / "results.json").read_text()) == results
    verified = verify(out)
    assert verified.passed, [one.text for one in verified.findings if not one.passed]
    assert {name for name in results["files"] if name.startswith("models/")} == {
        path.relative_to(out).as_posix() for path in (out / "models").iterdir()
    }
    assert all(run["model_file"] in results["files"] for run in results["runs"])
    api.run(parse_study(table(data, **SMALL)), out)
    assert verify(out).passed
    assert not list((out / "models").glob("*seed1*"))


def test_old_results_are_gone_before_the_first_file_of_a_new_run_is_written(data, tmp_path, monkeypatch):
    out = tmp_path / "out"
    api.run(parse_study(table(data, **SMALL)), out)
    before = {path: path.read_bytes() for path in (out / "models").iterdir()}

    def killed(*_: object) -> None:
        raise KilledError

    second = parse_study(table(data, **{**SMALL, "finetune": {"epochs": 2, "batch_size": 32}}))
    with monkeypatch.context() as patch:
        patch.setattr("wemem.api.write_model", killed)
        with pytest.raises(KilledError):
            api.run(second, out)
    assert not (out / "results.json").exists()
    assert not (out / "per_sample.parquet").exists()
    # and where it is killed as it removes them, results go first: files may stay, results beside other files never do
    for path, content in before.items():
        path.write_bytes(content)
    api.run(second, out)
    removed: list[str] = []
    unlink = Path.unlink

    def noted(path: Path, missing_ok: bool = False) -> None:
        removed.append(path.name)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", noted)
    results_folder.remove_old_results(out)
    assert removed[0] == "results.json"


def test_an_audit_of_a_file_names_that_file_by_its_hash(data, tmp_path):
    study = table(data, **SMALL)
    api.run(parse_study(study), tmp_path / "run", tmp_path / "store")
    weights = tmp_path / "given.safetensors"
    save_file(load_file(tmp_path / "run/models/dense-seed0.safetensors"), weights)
    np.savez(tmp_path / "members.npz", members=np.arange(200))
    study["victim"] = {"weights": str(weights), "members": str(tmp_path / "members.npz")}
    results, _ = api.audit(parse_study(study), None, tmp_path / "out", tmp_path / "store")
    assert verify(tmp_path / "out").passed
    (run,) = results["runs"]
    assert run["audited_file"]["name"] == "given.safetensors"


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_diverges_leaves_no_results_of_an_earlier_one(data, tmp_path, jobs):
    out = tmp_path / "out"
    api.run(parse_study(table(data, **SMALL)), out)
    diverging = parse_study(table(data, **SMALL | {"finetune": {"epochs": 2, "learning_rate": 1e30}}))
    with pytest.raises(DivergedError, match="training diverged"):
        api.run(diverging, out, jobs=jobs)
    assert not (out / "results.json").exists()
    with pytest.raises(InputError, match="expected results"):
        verify(out)


def test_a_run_that_is_refused_leaves_the_results_of_an_earlier_one(data, tmp_path):
    out = tmp_path / "out"
    api.run(parse_study(table(data, **SMALL)), out)
    with pytest.raises(InputError):
        api.run(parse_study(table(tmp_path / "none.npz", **SMALL)), out)
    assert verify(out).passed


@pytest.mark.parametrize("error", [KilledError, InputError])
def test_a_command_that_fails_in_mid_training_leaves_no_results_of_an_earlier_one(data, tmp_path, monkeypatch, error):
    def failing(*given: Any, **named: Any) -> Any:
        raise error("in mid-training")

    first, out = parse_study(table(data, **SMALL)), tmp_path / "out"
    api.run(first, out)
    weights = tmp_path / "given.safetensors"
    save_file(load_file(out / "models/dense-seed0.safetensors"), weights)
    np.savez(tmp_path / "members.npz", members=np.arange(200))
    victim = {"weights": str(weights), "members": str(tmp_path / "members.npz")}
    second = parse_study(table(data, **SMALL | {"seeds": [1], "victim": victim}))
    api.prune(second, "undefended", tmp_path / "pruned")
    wemem.train(study=first, out=tmp_path / "trained", progress=False)
    assert all((tmp_path / name / "weights.safetensors").exists() for name in ("pruned", "trained"))
    monkeypatch.setattr("wemem.pipeline.trainer.fit", failing)
    monkeypatch.setattr(sys.modules["wemem.pruning.iterate"], "fit", failing)
    third = table(data, **SMALL | {"seeds": [2]})
    with pytest.raises(error):
        api.run(parse_study(third), out)
    assert not (out / "results.json").exists()
    with pytest.raises(error):
        api.prune(parse_study(third | {"victim": victim}), "undefended", tmp_path / "pruned")
    with pytest.raises(error):
        wemem.train(study=third, out=tmp_path / "trained", progress=False)
    for name in ("pruned", "trained"):
        assert not list((tmp_path / name).glob("*.safetensors"))
    assert weights.exists()


def test_a_failed_pruning_into_the_folder_of_its_model_keeps_the_model(tmp_path):
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"given")
    remove_old_model(tmp_path, str(tmp_path))
    assert weights.exists()
    remove_old_model(tmp_path, str(tmp_path.parent / "other.safetensors"))
    assert not weights.exists()

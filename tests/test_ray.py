"""A study on a Ray of several nodes: the same bytes, whatever is killed on the way."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ray_cluster import AT_WORK, cluster_of, finished, kill_worker, processes, start, wait_until
from small_study import CLASSES, FEATURES, RECORDS, as_toml, table, without_times, write_data
from test_cli import refused, stored_entries
from test_resume import same_files
from wemem import api
from wemem.config.parse import parse_study
from wemem.data.dataset import Dataset
from wemem.data.packed_inputs import PackedInputs, Part
from wemem.data.table_form import Column, TableForm
from wemem.diagnosis.experiment import DiagnosisSettings
from wemem.errors import InputError
from wemem.execution.executor import Executor
from wemem.execution.remote import data_message, data_of, perform_remotely, versions
from wemem.exporting.checkpoint import write_weights
from wemem.files.record_tables import RecordIds
from wemem.models import FullyConnected
from wemem.pipeline.progress import Silent

ray = pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]

#: Tasks of about a second, of which some are there to be killed.
STUDY: dict[str, Any] = {
    "training": {"epochs": 30, "patience": 30, "batch_size": 16}, "finetune": {"epochs": 2, "batch_size": 64},
    "pruning": {"rounds": 2}, "split": {"shadows": 1, "references": 4}, "scores": {"models": 6},
    "attacks": ["confidence", "lira"], "defenses": ["rmr"],
}  # fmt: skip
#: Tasks of a moment.
SHORT: dict[str, Any] = {
    "training": {"epochs": 1, "batch_size": 64}, "finetune": {"epochs": 1, "batch_size": 64},
    "pruning": {"rounds": 2}, "split": {"shadows": 1, "references": 4}, "scores": {"models": 6},
    "model": {"kind": "fc", "hidden": [24, 12], "dropout": 0.0},
}  # fmt: skip


def write_study(folder: Path) -> Path:
    study = folder / "study.toml"
    study.write_text(as_toml(table(write_data(folder), **STUDY)))
    return study


def read(out: Path) -> dict[str, Any]:
    return without_times(json.loads((out / "results.json").read_text()))


@pytest.fixture(scope="module")
def cluster():
    with cluster_of(2) as started:
        yield started


def test_kills_of_a_worker_a_node_and_the_driver_change_no_byte(cluster, tmp_path):
    study = write_study(tmp_path)
    driver = start(study, "ray/out", cluster.address)
    wait_until(kill_worker)
    wait_until(lambda: stored_entries(tmp_path / "ray/.store") > 2 and processes(AT_WORK))
    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
    wait_until(lambda: stored_entries(tmp_path / "ray/.store") > 5 and processes(AT_WORK))
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    wait_until(lambda: not processes(AT_WORK, tmp_path))  # what a driver began ends with it
    before = stored_entries(tmp_path / "ray/.store")
    finished(start(study, "ray/out", cluster.address))
    assert before < stored_entries(tmp_path / "ray/.store")
    alone = api.run(study, tmp_path / "one/out", threads=1)
    assert read(tmp_path / "ray/out") == without_times(alone)
    same_files(tmp_path / "ray/out", tmp_path / "one/out")


def test_one_model_and_a_diagnosis_come_out_of_a_cluster_as_out_of_one_process(cluster, tmp_path):
    given = FullyConnected((24, 12), 0.0).build((FEATURES,), CLASSES)
    write_weights(tmp_path / "given.safetensors", given.state_dict())
    np.savez(tmp_path / "members.npz", members=np.arange(0, RECORDS, 2))
    study = table(write_data(tmp_path), **SHORT, attacks=["confidence", "lira"], defenses=["rsw"])
    victim = {"weights": str(tmp_path / "given.safetensors"), "members": str(tmp_path / "members.npz")}
    config, own = parse_study(study | {"victim": victim}), parse_study(study)
    for name, ray in (("ray", cluster.address), ("one", None)):
        api.prune(config, "rsw", tmp_path / name / "pruned", ray=ray, threads=1)
        api.audit(config, None, tmp_path / name / "audit", ray=ray, threads=1)
        api.diagnose(own, tmp_path / name / "diagnosis", DiagnosisSettings(models=6), ray=ray, threads=1)
    assert read(tmp_path / "ray/audit") == read(tmp_path / "one/audit")
    for file in ("pruned/weights.safetensors", "audit/per_sample.parquet"):
        assert (tmp_path / "ray" / file).read_bytes() == (tmp_path / "one" / file).read_bytes()
    ours, alone = (json.loads((tmp_path / n / "diagnosis/diagnosis.json").read_text()) for n in ("ray", "one"))
    assert ours | {"seconds": 0} == alone | {"seconds": 0}


def test_ctrl_c_ends_the_tasks_of_a_cluster_in_one_line(cluster, tmp_path):
    driver = start(write_study(tmp_path), "out", cluster.address)
    wait_until(lambda: processes(AT_WORK))
    driver.send_signal(signal.SIGINT)
    _, errors = driver.communicate(timeout=60)
    assert "Traceback" not in errors
    assert errors.splitlines()[-1] == "wemem: stopped; the same command goes on from here"  # after lines of progress
    assert driver.returncode == 130
    wait_until(lambda: not processes(AT_WORK, tmp_path))


class Impatient(Silent):
    def warn(self, message: str) -> None:
        raise RuntimeError(message)


def test_tasks_that_no_node_can_take_are_not_waited_for_in_silence(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr("wemem.execution.ray.WAITED", 1.0)
    with pytest.raises(RuntimeError, match="each takes 64 cores, and the largest node has 1 cores"):
        api.run(write_study(tmp_path), tmp_path / "out", None, Impatient(), ray=cluster.address, threads=64)


def test_no_cluster_is_one_line(tmp_path, capsys, monkeypatch):
    study = write_study(tmp_path)
    line = refused(["run", str(study), "--out", str(tmp_path / "out"), "--ray", "127.0.0.1:1"], capsys, monkeypatch)
    assert "expected a Ray cluster at '127.0.0.1:1', got no answer" in line
    line = refused(["run", str(study), "--out", str(tmp_path / "out"), "--ray", "ray://x:1"], capsys, monkeypatch)
    assert "as HOST:PORT" in line


def outcome(changed: dict[str, Any]) -> dict[str, str]:
    setup = {"program": {}, "store": "", "folder": ".", "path": [], "threads": 1, "versions": versions()} | changed
    result: dict[str, str] = json.loads(perform_remotely(json.dumps(setup), None, None, None, "{}", 0, list))
    return result


def test_another_version_of_a_library_is_refused_by_name():
    other = outcome({"versions": versions() | {"torch": "1.0.0"}})
    assert other["state"] == "refused"
    assert "expected torch 1.0.0 as on the driver, got " in other["text"]
    missing = outcome({"versions": versions() | {"optuna": "9.9"}})
    assert "expected optuna 9.9 as on the driver" in missing["text"]


def test_a_machine_without_the_folder_of_the_driver_is_refused():
    assert "a folder that all nodes share" in outcome({"folder": "/nowhere"})["text"]


TABLE = TableForm((*(Column(str(i)) for i in range(5)), Column("job", ("cook", "nurse"), missing=True)))
PACKED = PackedInputs((Part("ids", (2,), "int"), Part("mask", (4,), "bool")))


@pytest.mark.parametrize(
    "changed",
    [{}, {"table": TABLE}, {"ids": RecordIds("name", tuple("abcdef"))}, {"inputs": PACKED}, {"drawn_from": 9}],
    ids=["remarks", "table", "ids", "inputs", "drawn"],
)
def test_a_data_set_arrives_at_a_worker_as_it_was_but_for_remarks(changed):
    plain = Dataset.from_arrays("six", np.eye(6, dtype=np.float32), [10, 30, 10, 20, 20, 30])
    assert plain.notes
    sent = replace(plain, **changed)
    about = data_message(sent)
    assert about is not None
    received = data_of(about, sent.features, sent.labels)
    assert received.fingerprint == sent.fingerprint
    for name in ("name", "classes", "class_names", "drawn_from", "table", "ids", "inputs"):
        assert getattr(received, name) == getattr(sent, name)


def test_jobs_and_ray_exclude_each_other():
    with pytest.raises(InputError, match="either --jobs or --ray"):
        Executor(2, "auto")
    with pytest.raises(InputError, match="threads must be at least 1"):
        Executor(threads=0)

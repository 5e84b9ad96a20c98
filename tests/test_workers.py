"""A study in several processes: the same results, nothing computed twice, and an end to all of them when one fails."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from small_study import as_toml, table, without_times, write_data
from test_cli import refused, stored_entries
from test_resume import same_files
from wemem import api
from wemem.config.parse import parse_study
from wemem.config.study import StudyConfig
from wemem.defenses import Undefended
from wemem.errors import InputError
from wemem.execution.processes import compute_side_by_side
from wemem.execution.program import StudyProgram
from wemem.pipeline.progress import Silent
from wemem.tuning.space import STARTS

pytestmark = pytest.mark.slow

OWN = """
import os, signal
from dataclasses import dataclass
from wemem import Defense

@dataclass(frozen=True)
class Deadly(Defense):
    name = "deadly"
    def loss(self, batch):
        os.kill(os.getpid(), signal.SIGKILL)
"""
WEMEM = [sys.executable, "-m", "wemem"]
SMALL: dict[str, Any] = {
    "training": {"epochs": 1, "batch_size": 64}, "finetune": {"epochs": 1, "batch_size": 64},
    "pruning": {"rounds": 2}, "split": {"shadows": 1, "references": 6}, "scores": {"models": 6},
}  # fmt: skip


class Stages(Silent):
    """The stages of each process, and which of them were computed."""

    def __init__(self):
        self.running: dict[int, str] = {}
        self.computed: list[str] = []
        self.planned: list[float] = []
        self.number = 0

    def plan(self, work: float) -> None:
        self.planned.append(work)

    def worker(self, number: int, workers: int) -> "Stages":
        one = Stages()
        one.running, one.computed, one.number = self.running, self.computed, number
        return one

    def begin(self, stage: str, work: float) -> None:
        assert self.number not in self.running
        self.running[self.number] = stage

    def end(self, *, stored: bool) -> None:
        stage = self.running.pop(self.number)
        self.computed += [] if stored else [stage]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of a user's own parts in the working directory, which no worker has seen yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_in_workers", raising=False)
    (tmp_path / "own_in_workers.py").write_text(OWN)
    return tmp_path


def test_two_jobs_give_what_one_gives_and_compute_nothing_twice(own):
    oosd = {"kind": "oosd", "teachers": 2, "held_out": 1, "grid": {"hard": [1.0, 0.0]}}
    config = parse_study(
        table(
            write_data(own), **SMALL, non_adaptive=True, leave_one_out=True,
            attacks=["confidence", "pruning_trajectory", "lira"],
            defenses=["undefended", oosd, {**oosd, "label": "b", "temperature": 2}, {"kind": "swmr", "references": 8}],
        )
    )  # fmt: skip
    heard = Stages()
    side_by_side = api.run(config, own / "two/out", None, heard, jobs=2)
    assert heard.running == {}
    assert len(set(heard.computed)) == len(heard.computed) > 40
    assert len(heard.planned) == 2  # the selection with all that follows, then what follows
    alone = api.run(config, own / "one/out")
    assert without_times(side_by_side) == without_times(alone)
    same_files(own / "two/out", own / "one/out")


def test_what_two_jobs_find_for_a_budget_is_what_one_finds_and_nothing_is_computed_twice(own):
    """Two settings are tried, the ones that two other arms have, so that what is found is pruned under already."""
    families = ["rsw", "rmr"]
    search = {"kind": "auto", "families": families, "trials": 2, "finalists": 1, "models": 3}
    config = parse_study(
        table(
            write_data(own), **SMALL, attacks=["confidence"],
            defenses=[
                "undefended", *({"kind": kind, **STARTS[kind]} for kind in families),
                {**search, "label": "accurate"}, {**search, "label": "private", "max_tpr": 0.02},
                {"kind": "auto", "mode": "online", "label": "online"},
            ],
        )
    )  # fmt: skip
    heard, undisturbed = Stages(), Stages()
    side_by_side = api.run(config, own / "two/out", None, heard, jobs=2)
    alone = api.run(config, own / "one/out", None, undisturbed)
    assert sorted(heard.computed) == sorted([*undisturbed.computed, "put together what is in the store"])
    assert without_times(side_by_side) == without_times(alone)
    assert [run["auto"]["trials"] for run in side_by_side["runs"] if "front" in run.get("auto", {})] == [2, 2]
    same_files(own / "two/out", own / "one/out")


def test_what_a_worker_refuses_is_one_line_and_exit_code_two(own, capsys, monkeypatch):
    study = own / "study.toml"
    study.write_text(as_toml(table(write_data(own), **SMALL, attacks=["confidence"], defenses=["undefended"])))
    diverging = ["--set", "training.learning_rate=1e30", "--set", "training.optimizer=sgd"]
    line = refused(["run", str(study), "--out", "out", "--jobs", "2", *diverging], capsys, monkeypatch)
    assert "training diverged" in line
    assert "jobs must be at least 1" in refused(["run", str(study), "--out", "o", "--jobs", "0"], capsys, monkeypatch)
    assert not (own / "out").exists()


def test_a_worker_that_is_killed_is_told_of_and_what_was_finished_stays(own):
    config = parse_study(table(write_data(own), **SMALL, attacks=["confidence"], defenses=["own_in_workers:Deadly"]))
    with pytest.raises(InputError, match=r"killed by SIGKILL in the stage 'prune under own_in_workers:Deadly'.*--jobs"):
        compute_side_by_side(StudyProgram(config), config.data.load(), own / ".store", Silent(), jobs=1)
    assert stored_entries(own / ".store") > 0


def none_left(group: int) -> bool:
    """Whether all processes of a group come to their end within half a minute."""
    ended = time.monotonic()
    while time.monotonic() - ended < 30:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_ctrl_c_ends_all_processes_and_the_next_run_goes_on(own):
    study = own / "study.toml"
    long = {**SMALL, "finetune": {"epochs": 2000, "patience": 2000, "batch_size": 8}}
    study.write_text(as_toml(table(write_data(own), **long, attacks=["lira"], defenses=["undefended", "rsw"])))
    process = subprocess.Popen(
        [*WEMEM, "run", str(study), "--out", "out", "--jobs", "2"], cwd=own, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while process.poll() is None and not stored_entries(own / ".store"):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
    assert errors.splitlines()[-1] == "wemem: stopped; the same command goes on from here"  # after lines of progress
    assert process.returncode == 130
    assert none_left(process.pid)


def test_a_study_that_no_table_gives_cannot_be_handed_to_workers(own):
    config = parse_study(table(write_data(own), **SMALL))
    bare = StudyConfig(config.data, config.model, {"undefended": Undefended()}, config.attacks)
    with pytest.raises(InputError, match="that a table gives"):
        compute_side_by_side(StudyProgram(bare), config.data.load(), own / ".store", Silent(), jobs=1)


def test_workers_end_with_the_process_that_started_them_even_if_it_is_killed(own):
    study = own / "study.toml"
    long = {**SMALL, "training": {"epochs": 100_000, "patience": 100_000, "batch_size": 8}}
    study.write_text(as_toml(table(write_data(own), **long, attacks=["confidence"], defenses=["undefended"])))
    process = subprocess.Popen(
        [*WEMEM, "run", str(study), "--out", "out", "--jobs", "2"], cwd=own, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while process.poll() is None and not list(own.glob(".store/lock")):
        time.sleep(0.02)
    time.sleep(1)  # whether the worker is still starting or at work, it must end
    process.kill()
    process.wait()
    assert none_left(process.pid)

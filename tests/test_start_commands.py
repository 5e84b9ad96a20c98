"""The commands for a beginning: a starter study that runs, lists, an outline, and completion in the shell."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from small_study import as_toml, table, write_data
from test_cli import done, refused
from wemem.attacks import ATTACKS
from wemem.config.catalogue import LISTS, catalogue
from wemem.config.parse import load_study
from wemem.config.starter import starter_study
from wemem.data.dataset import Dataset
from wemem.data.sources import DataSource
from wemem.defenses import DEFENSES
from wemem.models import MODELS

pytestmark = pytest.mark.slow


def arrays(path, x, y):
    np.savez(path, x=x, y=y)
    return DataSource(str(path))


@pytest.mark.parametrize(
    ("shape", "kind", "dtype"),
    [((5,), "fc", "f4"), ((1, 8, 8), "convnet", "f4"), ((3, 8, 8), "resnet8", "f4"), ((6,), "text_transformer", "i8")],
)
def test_the_starter_study_names_a_model_that_takes_the_records(tmp_path, monkeypatch, capsys, shape, kind, dtype):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    arrays("data.npz", rng.integers(0, 5, (200, *shape)).astype(dtype), np.arange(200) % 2)
    done(["init", "--data", "data.npz"], capsys, monkeypatch)
    assert f'kind = "{kind}"' in (tmp_path / "study.toml").read_text()
    assert "Would prune as swmr" in done(["run", "study.toml", "--out", "x", "--dry-run"], capsys, monkeypatch)
    assert not (tmp_path / "x").exists()


def test_a_file_that_exists_is_not_overwritten(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.toml").write_text("mine")
    assert "does not exist yet" in refused(["init", "--data", "digits"], capsys, monkeypatch)
    assert (tmp_path / "study.toml").read_text() == "mine"


@pytest.mark.parametrize("name", ['q"uote', "back\\slash", "new\nline", "bell\x07", "del\x7f", "snow\u2603\U0001f600"])
def test_hostile_names_reach_the_study_unchanged(tmp_path, name):
    data = Dataset("toy", np.zeros((60, 2), "f4"), np.arange(60) % 2, classes=2)
    source = DataSource(str(tmp_path / f"{name}.csv"), label=name)
    path = tmp_path / "study.toml"
    path.write_text(starter_study(source, data), encoding="utf-8")
    assert load_study(path).data == source


def test_lists_name_everything_that_a_study_knows_with_one_line_each(capsys, monkeypatch):
    lists = catalogue()
    assert tuple(lists) == LISTS
    assert set(ATTACKS) < set(lists["attacks"])
    assert set(DEFENSES) < set(lists["defenses"])
    assert set(MODELS) == set(lists["models"])
    for name, entries in lists.items():
        for entry, line in entries.items():
            assert line.strip(), (name, entry)
            assert "\n" not in line
            assert not line.startswith(":"), line
    printed = done(["list", "defenses"], capsys, monkeypatch).splitlines()
    assert len(printed) == len(lists["defenses"]) + 1
    assert len(done(["list"], capsys, monkeypatch).splitlines()) == sum(map(len, lists.values())) + len(lists)


@pytest.mark.parametrize("command", ["run", "compare"])
def test_a_dry_run_names_every_arm_and_writes_nothing(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    study = tmp_path / "study.toml"
    study.write_text(as_toml(table(write_data(tmp_path), controls=["unpruned"])))
    before = sorted(tmp_path.rglob("*"))
    printed = done([command, "study.toml", "--out", "runs/x", "--dry-run"], capsys, monkeypatch)
    assert sorted(tmp_path.rglob("*")) == before
    for arm in ("unpruned", "undefended", "swmr"):
        assert f"Would prune as {arm} in 3 rounds" in printed
    assert "2 shadow models and 4 reference models" in printed


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_completes_commands_by_the_script_that_is_printed(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment["_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"] = "1"  # the shell is named instead
    show = [sys.executable, "-m", "wemem", "--show-completion", "bash"]
    script = subprocess.run(show, env=environment, capture_output=True, text=True, timeout=60)
    assert script.returncode == 0, script.stderr
    assert not script.stderr
    wemem = tmp_path / "wemem"
    wemem.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m wemem "$@"\n')
    wemem.chmod(0o755)
    ask = 'COMP_WORDS=(wemem ver); COMP_CWORD=1; _wemem_completion "$0"; echo "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "-c", f"{script.stdout}\n{ask}", wemem], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout.split(), done.stderr) == (["verify"], "")


@pytest.mark.parametrize("words", [["-h"], ["--help"], ["list", "-h"], ["store", "gc", "-h"]])
def test_help_has_a_short_form_everywhere(words, capsys, monkeypatch):
    assert "Usage: wemem" in done(words, capsys, monkeypatch)

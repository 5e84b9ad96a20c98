"""The command line: what a person got wrong is one line and exit code 2; a killed run goes on where it was."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from small_study import as_toml, table, without_times, write_data
from wemem import api, cli
from wemem.data.sources import DataSource
from wemem.models import FullyConnected

pytestmark = pytest.mark.slow

WEMEM = [sys.executable, "-m", "wemem"]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "study.toml"
    path.write_text(as_toml(table(write_data(tmp_path), attacks=["confidence"], defenses=["undefended", "rsw"])))
    return path


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The one line that a refused command prints."""
    monkeypatch.setattr(sys, "argv", ["wemem", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()  # progress may come before the one line of the error
    assert [line for line in lines if line.startswith(("wemem: ", "Traceback"))] == lines[-1:], lines
    return lines[-1]


def done(arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What a command prints that succeeds."""
    monkeypatch.setattr(sys, "argv", ["wemem", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0
    return capsys.readouterr().out


def test_a_run_prints_tables_and_says_where_everything_is(study, capsys, monkeypatch):
    printed = done(["run", str(study), "--out", "out"], capsys, monkeypatch)
    for expected in ("undefended", "rsw", "confidence", "chance", "results.json", "per_sample.parquet"):
        assert expected in printed


def test_a_comparison_sets_the_one_that_leaks_least_against_the_others(study, capsys, monkeypatch):
    printed = done(["compare", str(study), "--out", "out"], capsys, monkeypatch)
    assert "another seed may show otherwise" in printed
    rows = Path("out/runs.csv").read_text().splitlines()
    assert len(rows) == 1 + 3  # the heading; dense, undefended and rsw under one attack each


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("pruning.sparsty=0.5", "did you mean 'sparsity'"),
        ("pruning.sparsity=1.5", "sparsity must be in"),
        ('pruning.rounds="many"', "rounds"),
        ("split.shadow=5", "did you mean 'shadows'"),
        ("split.train=0.95", "train"),
        ("defenses=[{kind='rws'}]", "did you mean"),
        ("defenses=[{kind='rsw', widht=3}]", "did you mean 'width'"),
        ("defenses=[{kind='rsw', width=5000}]", "smallest class"),
        ("defenses=[{kind='rmr', top=0.2, threshold=0.5}]", "either top or threshold"),
        ("defenses=[]", "at least one defense"),
        ("attacks=['confidnce']", "did you mean 'confidence'"),
        ("seeds=[]", "at least one seed"),
        ("backend=fast", "backend must be"),
        ("model.kind=resnet", "model kind"),
        ("model.kind='nowhere:model'", "nowhere"),
        ("model.hidden=[0]", "hidden"),
        ("data.source=digit", "did you mean 'digits'"),
        ("data.source=absent.npz", "absent.npz"),
        ("sedes=[1]", "did you mean 'seeds'"),
        ("no-equals-sign", "key=value"),
    ],
)
def test_a_wrong_setting_is_one_line(override, expected, study, tmp_path, capsys, monkeypatch):
    line = refused(["run", str(study), "--out", "out", "--set", override], capsys, monkeypatch)
    assert expected in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["run", "compare", "diagnose", "prune", "audit"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_made(command, study, tmp_path, capsys, monkeypatch):
    given = [str(study)] if command in ("run", "compare", "diagnose") else ["--study", str(study)]
    model = ["--weights", "w.safetensors", "--members", "m.npz"] if command in ("prune", "audit") else []
    line = refused([command, *given, *model, "--out", "out", "--device", "cuda:99"], capsys, monkeypatch)
    assert "device = 'cuda:99' expected" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda x, y: (np.where(np.arange(len(x))[:, None] == 7, np.nan, x), y), "index 7"),
        (lambda x, y: (np.where(np.arange(len(x))[:, None] == 7, np.inf, x), y), "finite features"),
        (lambda x, y: (x[:-1], y), "same N"),
        (lambda x, y: (x, y + 0.5), "whole"),
        (lambda x, y: (x[:12], y[:12]), "expected"),
        (lambda x, y: (x, np.where(np.arange(len(y)) == 5, 3, np.minimum(y, 2))), "every class"),
    ],
)
def test_bad_data_are_one_line(change, expected, study, tmp_path, capsys, monkeypatch):
    with np.load(tmp_path / "data.npz") as arrays:
        x, y = change(arrays["x"], arrays["y"])
    np.savez(tmp_path / "data.npz", x=x, y=y)
    assert expected in refused(["run", str(study), "--out", "out"], capsys, monkeypatch)
    assert not (tmp_path / "out").exists()


def test_bad_files_are_one_line(study, tmp_path, capsys, monkeypatch):
    assert "expected a study file" in refused(["run", "absent.toml", "--out", "out"], capsys, monkeypatch)
    (tmp_path / "broken.toml").write_text("seeds = [")
    assert "expected TOML" in refused(["run", "broken.toml", "--out", "out"], capsys, monkeypatch)
    given = ["run", str(study), "--out", "out", "--weights", "w.safetensors"]
    assert "together" in refused(given, capsys, monkeypatch)
    np.savez(tmp_path / "m.npz", members=np.arange(200))
    save_file(FullyConnected((24, 12)).build((8,), 3).state_dict(), tmp_path / "w.safetensors")
    whole = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(whole[:-10])
    assert "safetensors" in refused([*given, "--members", "m.npz"], capsys, monkeypatch)
    save_file(FullyConnected((24, 11)).build((8,), 3).state_dict(), tmp_path / "w.safetensors")
    assert "another architecture" in refused([*given, "--members", "m.npz"], capsys, monkeypatch)
    (tmp_path / "w.safetensors").write_bytes(whole)
    np.savez(tmp_path / "m.npz", members=np.array([0, 9999]))
    assert "9999" in refused([*given, "--members", "m.npz"], capsys, monkeypatch)
    np.savez(tmp_path / "m.npz", members=np.arange(600))
    assert "not trained on" in refused([*given, "--members", "m.npz"], capsys, monkeypatch)
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_place_of_a_folder_is_one_line(study, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("")
    assert "store" in refused(["run", str(study), "--out", "out", "--store", "file"], capsys, monkeypatch)
    assert "cannot write" in refused(["run", str(study), "--out", "file"], capsys, monkeypatch)


def test_a_full_disk_is_one_line_and_leaves_no_half_written_results(study, tmp_path, capsys, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    line = refused(["run", str(study), "--out", "out"], capsys, monkeypatch)
    assert "No space left" in line
    assert not list(tmp_path.glob("out/**/*.*"))


def test_contradicting_ways_to_name_a_model_are_one_line(study, capsys, monkeypatch):
    line = refused(["audit", "--out", "out", "--signals", "s.npz", "--predict", "m:f"], capsys, monkeypatch)
    assert "another mix" in line


def test_a_users_own_parts_come_from_a_file_beside_the_study(study, tmp_path, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "own", raising=False)
    (tmp_path / "own.py").write_text(
        "from dataclasses import dataclass\n"
        "import numpy as np\n"
        "from torch import nn\n"
        "from wemem import Attack, Defense\n"
        "def model(input_shape, classes, width=4):\n"
        "    return nn.Sequential(nn.Linear(*input_shape, width), nn.Tanh(), nn.Linear(width, classes))\n"
        "@dataclass(frozen=True)\n"
        "class Half(Defense):\n"
        "    share: float = 0.5\n"
        "    @property\n"
        "    def name(self): return 'half'\n"
        "    def loss(self, batch): return self.share * batch.mean(batch.cross_entropy())\n"
        "@dataclass(frozen=True)\n"
        "class Coin(Attack):\n"
        "    name = 'coin'\n"
        "    layout = 'disjoint'\n"
        "    def score(self, signals, target, *, seed):\n"
        "        return np.random.default_rng(seed).random(len(signals.audited(target)))\n"
    )
    own = ["model={kind='own:model', width=5}", "defenses=[{kind='own:Half', share=0.25}]", "attacks=['own:Coin']"]
    arguments = ["run", str(study), "--out", "out", *(part for o in own for part in ("--set", o))]
    done(arguments, capsys, monkeypatch)
    run = json.loads((tmp_path / "out" / "results.json").read_text())["runs"][1]
    assert (run["defense"], run["settings"], list(run["attacks"])) == ("half", {"share": 0.25}, ["coin"])


def stored_entries(store: Path) -> int:
    """Not those that are being written, whose folders come and go."""
    return len(list(store.glob("*/??/*/meta.json")))


def test_a_killed_run_goes_on_and_ends_as_an_undisturbed_one(study, tmp_path):
    command = [*WEMEM, "run", str(study), "--set", "attacks=['confidence','lira']", "--out"]
    api.run(api.read_study(study, ["attacks=['confidence','lira']"]), tmp_path / "a/out")
    entries = stored_entries(tmp_path / "a/.store")
    process = subprocess.Popen([*command, "b/out"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and stored_entries(tmp_path / "b/.store") < entries // 2:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "b/out/results.json").exists()
    last = subprocess.run([*command, "b/out"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    assert "found in store" in last.stderr
    first, second = (json.loads((tmp_path / part / "out/results.json").read_text()) for part in "ab")
    assert without_times(first) == without_times(second)
    samples = [(tmp_path / part / "out/per_sample.parquet").read_bytes() for part in "ab"]
    assert samples[0] == samples[1]


def test_a_message_stays_one_line_whatever_names_the_user_has(study, capsys, monkeypatch):
    assert r"no\nsuch\x1b[31m.toml" in refused(["run", "no\nsuch\x1b[31m.toml", "--out", "out"], capsys, monkeypatch)
    assert "a:fire:b.toml" in refused(["run", "a:fire:b.toml", "--out", "out"], capsys, monkeypatch)


def test_a_model_that_was_not_given_is_one_line(study, capsys, monkeypatch):
    for command in ("prune", "audit"):
        line = refused([command, "--study", str(study), "--out", "out"], capsys, monkeypatch)
        assert "--weights" in line
        assert "--members" in line


def test_data_on_the_command_line_keep_the_other_settings_of_the_data(tmp_path):
    study = tmp_path / "study.toml"
    study.write_text('[data]\nsource = "cifar10"\npath = "images"\nrecords = 400\n')
    data = api.read_study(study, [], data="mine.npz").data
    assert isinstance(data, DataSource)
    assert (data.source, data.path, data.records) == ("mine.npz", None, 400)

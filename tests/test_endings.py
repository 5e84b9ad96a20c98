"""How commands end: one line and an exit code that means one thing, whatever goes wrong and whenever."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bound_results import bound_folder
from small_study import as_toml, table, write_data
from test_workers import none_left
from wemem import cli
from wemem.cli.endings import clipped
from wemem.results import gate

pytestmark = pytest.mark.slow

WEMEM = [sys.executable, "-m", "wemem"]


@pytest.fixture(autouse=True)
def hangups_heard() -> Iterator[None]:
    """Commands inherit what their shell ignores, as under nohup; those of these tests hear every signal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder of results that pass a gate."""
    return bound_folder(tmp_path / "results")


def passing(folder: Path) -> list[str]:
    return [*WEMEM, "gate", str(folder), "--max-tpr", "0.5"]


def ended(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(sys, "argv", ["wemem", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code


def test_a_gate_that_passes_but_cannot_print_has_exit_code_2_and_never_1(results):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(passing(results), stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "wemem: cannot write to standard output: No space left on device; nothing was printed from there on"
    ]
    reading, writing = os.pipe()
    os.close(reading)
    broken = subprocess.run(passing(results), stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (broken.returncode, len(broken.stderr.splitlines())) == (2, 1)
    command = " ".join(f"'{part}'" for part in passing(results))
    closed = subprocess.run(f"{command} >&-", shell=True, stderr=subprocess.PIPE, text=True, check=False)
    assert (closed.returncode, len(closed.stderr.splitlines())) == (2, 1)


def test_a_full_standard_error_does_not_change_the_exit_code():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*WEMEM, "gate", "absent"], stdout=subprocess.DEVNULL, stderr=full, check=False)
    assert done.returncode == 2


@pytest.mark.parametrize(("seconds", "name"), [
    (0.1, "SIGINT"), (0.7, "SIGINT"), (0.7, "SIGTERM"), (1.5, "SIGTERM"), (1.5, "SIGHUP"),
])  # fmt: skip
def test_a_signal_while_libraries_are_imported_is_one_line(seconds, name, tmp_path):
    study = tmp_path / "study.toml"
    study.write_text(as_toml(table(write_data(tmp_path), training={"epochs": 2000, "patience": 2000, "batch_size": 8})))
    process = subprocess.Popen(
        [*WEMEM, "run", str(study), "--out", str(tmp_path / "out")], stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(seconds)
    process.send_signal(getattr(signal, name))
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (128 + getattr(signal, name), -getattr(signal, name))
    # a process that Python had not taken over yet dies of the signal itself, without a word
    assert "Traceback" not in errors
    assert errors.splitlines()[-1:] in (["wemem: stopped; the same command goes on from here"], [])


def test_a_signal_that_is_ignored_on_purpose_stays_ignored(results):
    numbers = (signal.SIGHUP, signal.SIGINT)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    process = subprocess.Popen(passing(results), stdout=subprocess.DEVNULL)
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
    while process.poll() is None:
        for number in numbers:
            process.send_signal(number)
        time.sleep(0.02)
    assert process.returncode == 0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_workers_end_with_their_parent_even_while_they_import(name, tmp_path):
    study = tmp_path / "study.toml"
    study.write_text(as_toml(table(write_data(tmp_path), attacks=["confidence"], defenses=["undefended"])))
    process = subprocess.Popen(
        [*WEMEM, "run", str(study), "--out", "out", "--jobs", "2"], cwd=tmp_path, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None and len(children.read_text().split()) < 2:  # one of them tracks resources
        time.sleep(0.01)
    process.send_signal(getattr(signal, name))
    process.wait(timeout=60)
    assert none_left(process.pid)


def test_a_fault_of_the_program_is_one_line_that_asks_for_a_report(results, capsys, monkeypatch):
    def broken(*_):
        raise KeyError("surprise")

    monkeypatch.setattr(gate, "check_folder", broken)
    # errors are placed by the file they came from: a test is a user's file, so the fault is made to come from ours
    monkeypatch.setattr("wemem.cli.endings._is_users", lambda _: False)
    arguments = ["gate", str(results), "--max-tpr", "0.9"]
    assert ended(arguments, monkeypatch) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "a fault of this program" in line
    assert "surprise" in line
    assert "--debug" in line
    assert ended([*arguments, "--debug"], monkeypatch) == 3
    assert "Traceback" in capsys.readouterr().err


def test_an_error_in_a_users_own_function_names_the_users_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_broken", raising=False)
    (tmp_path / "own_broken.py").write_text("def data():\n    return [][1]\n")
    study = tmp_path / "study.toml"
    study.write_text(as_toml(table(Path("own_broken:data"))))
    assert ended(["run", str(study), "--out", "out"], monkeypatch) == 2
    plan, line = capsys.readouterr().err.splitlines()
    assert plan.startswith("Plan: ")
    assert "own_broken.py" in line
    assert "list index out of range" in line


@pytest.mark.parametrize(("source", "line"), [
    ("import sys\ndef data():\n    sys.exit(0)\n", "got sys.exit(0) from a function of yours"),
    ("def data(:\n", "own_ending.py, got invalid syntax in line 1"),
])  # fmt: skip
def test_a_users_module_cannot_end_a_command_with_success_or_as_a_fault_of_ours(
    source, line, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_ending", raising=False)
    (tmp_path / "own_ending.py").write_text(source)
    study = tmp_path / "study.toml"
    study.write_text(as_toml(table(Path("own_ending:data"))))
    assert ended(["run", str(study), "--out", "out"], monkeypatch) == 2
    assert line in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_value_of_a_user_is_cut_before_it_fills_the_terminal(capsys, monkeypatch):
    assert ended(["gate", "x" * 100_000, "--max-tpr", "0.9"], monkeypatch) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) < 1500
    assert len(clipped("y " * 100_000)) < 1500
    assert clipped("a short one") == "a short one"


@pytest.mark.parametrize(
    "arguments", [["rnu"], ["run"], ["run", "s.toml"], ["gate", "d", "--max-tpr", "much"], ["--x"]]
)
def test_a_wrong_command_line_is_one_line(arguments, capsys, monkeypatch):
    assert ended(arguments, monkeypatch) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("wemem: ")
    assert "--help" in line


def test_version_and_help_are_printed(capsys, monkeypatch):
    assert ended(["--version"], monkeypatch) == 0
    assert capsys.readouterr().out.startswith("wemem 0.")
    texts = []
    for arguments in ([], ["-h"], ["--help"]):
        assert ended(arguments, monkeypatch) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] == texts[2]
    assert "gate" in texts[0]


def imported(arguments: list[str], names: tuple[str, ...]) -> list[str]:
    """Those of some modules that a command has imported when it ends."""
    program = (
        "import sys\nfrom wemem.cli import main\nsys.argv = ['wemem', *sys.argv[2:]]\n"
        f"try:\n    main()\nfinally:\n    print(*[n for n in {names!r} if n in sys.modules], file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, "-", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr.split()


def test_help_imports_no_library_of_numbers_and_a_gate_none_that_trains_or_draws(results):
    assert imported(["--help"], ("torch", "numpy", "scipy", "pyarrow", "pydantic")) == []
    arguments = ["gate", str(results), "--max-tpr", "0.5"]
    assert imported(arguments, ("torch", "scipy.stats", "matplotlib", "sklearn", "pandas")) == []


def test_gate_on_altered_answers_imports_no_library_that_trains(tmp_path):
    arguments = ["gate", str(bound_folder(tmp_path, altered=True)), "--max-tpr", "0.5"]
    printed = imported(arguments, ("torch", "sklearn", "pandas"))
    assert "altered-answers" not in printed  # the gate ended well, and these modules were not imported
    assert printed == []

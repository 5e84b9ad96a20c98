"""The package without what only POSIX and Linux have: it is imported, and stores and writes without locks.

Nothing here ran on Windows or macOS. The modules are hidden and the files of Linux are missing, that is all.
"""

import subprocess
import sys

import pytest

HIDE = """
import sys
for name in ("fcntl", "resource", "termios", "tty", "pty", "grp", "pwd", "syslog"):
    sys.modules[name] = None
import os, signal
for name in ("sysconf", "sched_getaffinity", "O_NONBLOCK", "O_NOCTTY", "fork"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGHUP",):
    delattr(signal, name)
"""
IMPORT = """
import importlib, pkgutil, wemem
for module in pkgutil.walk_packages(wemem.__path__, "wemem."):
    if not module.name.startswith(("wemem.integrations.", "wemem.execution.ray", "wemem.__main__")):
        importlib.import_module(module.name)
print("imported")
"""
WORK = """
import pathlib, sys
import numpy as np
from wemem.files.locks import LOCKS
from wemem.files.output_folder import output_folder
from wemem.files.memory_limit import machine_memory
from wemem.pipeline.peak_memory import peak_mib
from wemem.store.store import Store
from wemem.store.keys import FunctionKey
assert not LOCKS and machine_memory() > 2**30
top = pathlib.Path(sys.argv[1])
with output_folder(top / "out") as folder, output_folder(top / "out"):  # nothing is locked, as the page says
    folder.mkdir()
store = Store(top / "store", print)
key = FunctionKey("a:b", "source", "data", "split", 0, 0).key()
store.put(key, {"x": np.arange(3)}, {"seconds": 1.0})
print(Store(top / "store", print).get(key).arrays["x"].tolist())
"""
COMMAND = """
import sys
from wemem.cli import main
sys.argv = ["wemem", "gate", sys.argv[1], "--max-tpr", "0.5"]
main()
"""


def run(program: str, *arguments: str) -> str:
    command = [sys.executable, "-c", HIDE + program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.mark.slow
def test_every_module_is_imported_without_those_of_posix():
    assert run(IMPORT) == "imported\n"


def test_the_store_and_the_output_directory_work_without_locks(tmp_path):
    assert run(WORK, str(tmp_path)) == "[0, 1, 2]\n"


def test_a_command_runs_without_signals_of_posix(tmp_path):
    assert "expected results" in run(COMMAND, str(tmp_path))

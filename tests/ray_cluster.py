"""A Ray cluster of several nodes on one machine, and ways to damage it while a study runs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

#: Names that Ray gives its processes while they perform a task of ours, and while they wait.
AT_WORK, WAITING = b"ray::_perform", b"ray::IDLE"
PATIENCE = 180.0
#: A node of one core.
MEMORY: dict[str, Any] = {"memory": 8 * 2**30, "object_store_memory": 80 * 2**20}
NODE: dict[str, Any] = {"num_cpus": 1, **MEMORY}


@contextmanager
def cluster_of(nodes: int) -> Iterator[Any]:
    """A cluster whose nodes have one core each, and one without cores to which drivers connect."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **MEMORY})
    try:
        for _ in range(nodes):
            cluster.add_node(**NODE)
        yield cluster
    finally:
        cluster.shutdown()


def start(study: Path, out: str, address: str, *more: str) -> subprocess.Popen[str]:
    """Start ``wemem run`` on a cluster, as a user does in a terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", "wemem", "run", str(study), "--out", out, "--ray", address, *more],
        cwd=study.parent, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finished(process: "subprocess.Popen[str]") -> str:
    """What a command wrote to standard error, once it has ended well."""
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return errors


def processes(name: bytes, folder: Path | None = None) -> list[int]:
    """Numbers of the processes with a name that this one started, or that work in a folder.

    Ray makes the processes of tasks children of a node. Those of a lost node have another parent, so that
    only the folder shows whose they are.
    """
    found, parents = [], _parents()
    for number in parents:
        try:
            if Path(f"/proc/{number}/cmdline").read_bytes().startswith(name):
                works_there = folder is not None and Path(f"/proc/{number}/cwd").resolve().is_relative_to(folder)
                if works_there or os.getpid() in _ancestors(number, parents):
                    found.append(number)
        except OSError:  # it has just ended
            continue
    return found


def _parents() -> dict[int, int]:
    """The number of the parent of every process."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
    return parents


def _ancestors(number: int, parents: dict[int, int]) -> Iterator[int]:
    while (number := parents.get(number, 0)) > 1:
        yield number


def wait_until(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Wait for a condition."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < patience
        time.sleep(0.05)


def kill_worker() -> bool:
    """Kill one process that performs a task; False if there is none."""
    for number in processes(AT_WORK)[:1]:
        try:
            os.kill(number, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True
    return False

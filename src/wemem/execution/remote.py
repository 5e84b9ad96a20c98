"""A task on another machine: JSON in, JSON out, and the records as arrays.

The driver sends its folder, its versions and its number of threads with the program. A machine that
has others refuses the task, because it would compute other results.
"""

import json
import os
import platform
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wemem.data.dataset import Dataset
from wemem.data.packed_inputs import PackedInputs
from wemem.data.table_form import TableForm
from wemem.errors import DivergedError, InputError
from wemem.execution.program import Program
from wemem.execution.reporting import Reporting
from wemem.execution.worker import Worker, program_message
from wemem.files.mapped import is_mapped
from wemem.files.record_tables import RecordIds
from wemem.settings import from_table
from wemem.store.fingerprint import environment

#: Seconds between two reports of a running stage.
REPORTED = 1.0
#: Distributions whose version every machine must share, beside those that are in every key.
LIBRARIES = ("wemem", "optuna", "onnxruntime", "torch-pruning", "safetensors")

#: The parts of a data set that are values of their own.
PARTS: Mapping[str, Any] = {"table": TableForm, "ids": RecordIds, "inputs": PackedInputs}

Send = Callable[[list[str]], object]


def versions() -> dict[str, Any]:
    """Everything that the keys of results hold of a machine, and the versions of further libraries."""
    return {"python": ".".join(platform.python_version_tuple()[:2]), **environment(LIBRARIES)}


def setup_message(program: Program, location: str | Path) -> str:
    """Everything that another machine must know of a program, as JSON.

    Args:
        program: the program.
        location: the location of the store.
    """
    return json.dumps(
        {
            "program": program_message(program), "store": str(location), "folder": str(Path.cwd()), "path": sys.path,
            "threads": torch.get_num_threads(), "versions": versions(),
        }
    )  # fmt: skip


def data_message(data: Dataset) -> str | None:
    """A data set without its arrays, as JSON; None for records that stay in a file, which every
    worker reads from their source. Remarks stay with the driver.
    """
    if is_mapped(data.features):
        return None
    parts = {name: getattr(data, name) for name in PARTS}
    about = {name: None if part is None else asdict(part) for name, part in parts.items()}
    return json.dumps(about | {name: getattr(data, name) for name in ("name", "classes", "class_names", "drawn_from")})


def data_of(about: str, features: np.ndarray, labels: np.ndarray) -> Dataset:
    """The data set of a message and its arrays, which are not copied."""
    known = json.loads(about)
    parts = {name: None if known[name] is None else from_table(kind, known[name], name) for name, kind in PARTS.items()}
    return Dataset(features=features, labels=labels, **(known | parts | {"class_names": tuple(known["class_names"])}))


class Workplace:
    """The state of a worker process from one task to the next.

    Attributes:
        setup: the program, as it was sent.
        worker: the program with its data.
        send: takes the reports of the task that runs.
    """

    setup: str = ""
    worker: Worker | None = None
    send: Callable[[list[Any]], object] = list


def perform_remotely(
    setup: str,
    about: str | None,
    features: np.ndarray | None,
    labels: np.ndarray | None,
    task: str,
    number: int,
    report: Send,
) -> str:
    """Perform one task.

    Args:
        setup: the program, the store, the folder and the versions of the driver, as JSON.
        about: the data set without its arrays, as JSON; None if the worker is to read it.
        features: the records, in the memory of this node.
        labels: their classes.
        task: the name of the task, as JSON.
        number: the number of its node.
        report: takes lines of JSON on what the task does.

    Returns:
        The outcome, as JSON.
    """
    place = platform.node()
    send = _Sender(report, number, place)
    send(["start"])
    try:
        Workplace.send = send
        _worker(setup, about, features, labels).perform(json.loads(task))
        state, text = "done", ""
    except InputError as error:
        state, text = "diverged" if isinstance(error, DivergedError) else "refused", f"{error} (on {place})"
    except Exception:
        state, text = "broken", traceback.format_exc()
    send.flush()
    return json.dumps({"state": state, "text": text, "place": place})


class _Sender:
    """Sends reports as lines; of a running stage at most one in a while."""

    def __init__(self, report: Send, number: int, place: str) -> None:
        self._report, self._number, self._place, self._sent = report, number, place, 0.0
        self._lines: list[str] = []

    def __call__(self, message: list[Any]) -> None:
        now = time.monotonic()
        if message[0] == "advance" and now - self._sent < REPORTED:
            return
        self._sent = now
        self._lines.append(json.dumps([self._number, self._place, *message]))
        if message[0] != "end":
            self.flush()

    def flush(self) -> None:
        """Send what was held back."""
        if self._lines:
            self._report(self._lines)
            self._lines = []


def _worker(
    setup: str, about: str | None, features: np.ndarray | None, labels: np.ndarray | None
) -> Worker:  # fmt: skip
    """The worker of this process for a program, newly made if it had another one."""
    if Workplace.worker is None or Workplace.setup != setup:
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # a view of Ray's memory
        content, Workplace.worker = json.loads(setup), None
        _go_to(content["folder"], content["path"])
        torch.set_num_threads(content["threads"])
        _require_versions(content["versions"])
        data = None
        if about is not None and features is not None and labels is not None:
            data = data_of(about, features, labels)
        reporting = Reporting(lambda message: Workplace.send(message))
        Workplace.worker = Worker.of(content["program"], content["store"], reporting, data)
        Workplace.setup = setup
    return Workplace.worker


def _go_to(folder: str, path: list[str]) -> None:
    """Work in the folder of the driver, with its places of modules, where paths of a study begin."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise InputError(
            f"expected the folder {folder} of the driver on every node, got {error.strerror}; run from a folder that "
            "all nodes share"
        ) from error
    sys.path += [place for place in path if place not in sys.path]


def _require_versions(expected: Mapping[str, Any]) -> None:
    """Refuse to compute with other versions than the driver's.

    Raises:
        InputError: a version, the code, the processor's capability or the number of threads differs.
    """
    installed = versions()
    for name, value in expected.items():
        if installed.get(name) != value:
            raise InputError(
                f"expected {name} {value} as on the driver, got {installed.get(name)}; give every node the same "
                "versions, code and kind of processor, for results depend on them"
            )

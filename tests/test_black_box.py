"""Audits by a predict and a train function of the user's: the audited model is asked every time, shadows are stored."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from small_study import table, write_data
from wemem.config.parse import parse_study
from wemem.pipeline.progress import Silent
from wemem.store.store import Store
from wemem.study.black_box import BlackBoxAudit, audit_by_functions

CODE = {
    "theirs.py": """
import numpy as np
import helper

def predict(features):
    '''A model on disk, which may be trained anew while its code stays.'''
    return np.load("weights.npy")[np.newaxis].repeat(len(features), 0) * features[:, :3]

def train(features, labels, seed):
    assert seed >= 0
    with open("trained.txt", "a") as file:
        file.write("x")
    return lambda asked: helper.SCALE * asked[:, :3]
""",
    "helper.py": "SCALE = 1.0\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in CODE.items():
        (tmp_path / name).write_text(text)
    np.save(tmp_path / "weights.npy", np.ones(3, np.float32))
    np.savez(tmp_path / "members.npz", members=np.arange(200))
    write_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    forget()


def forget() -> None:
    """Forget the user's modules, as a new process would not know them."""
    for name in ("theirs", "helper"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


def audited(folder: Path) -> BlackBoxAudit:
    forget()
    study: dict[str, Any] = table(folder / "data.npz", attacks=["confidence"], split={"shadows": 2})
    return audit_by_functions(
        parse_study(study), "theirs:predict", "theirs:train", folder / "members.npz", Store(folder / "store"), Silent()
    )  # fmt: skip


def trainings(folder: Path) -> int:
    return len((folder / "trained.txt").read_text())


def test_a_model_trained_anew_behind_the_same_function_is_asked_anew(folder):
    first = audited(folder)
    np.save(folder / "weights.npy", np.array([3, 2, 1], np.float32))
    second = audited(folder)
    assert not np.array_equal(first.signals.logits[0], second.signals.logits[0])
    assert np.array_equal(first.signals.logits[1:], second.signals.logits[1:])
    assert first.report.results[0].output.score.tolist() != second.report.results[0].output.score.tolist()
    assert trainings(folder) == 2  # the shadows were stored


def test_shadows_are_trained_anew_when_a_module_that_train_imports_has_changed(folder):
    first = audited(folder)
    (folder / "helper.py").write_text("SCALE = 2.0\n")
    second = audited(folder)
    assert np.array_equal(2 * first.signals.logits[1:], second.signals.logits[1:])
    assert trainings(folder) == 4

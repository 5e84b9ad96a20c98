"""Audits by a predict and a train function of the user's: the audited model is asked every time, shadows are stored."""

import hashlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from small_study import table, write_data
from wemem import api
from wemem.config.parse import parse_study
from wemem.errors import InputError
from wemem.pipeline.progress import Silent
from wemem.results.black_box import black_box_results
from wemem.store.store import Store
from wemem.study.black_box import BlackBoxAudit
from wemem.study.user_functions import audit_by_functions

CODE = {
    "theirs.py": """
import numpy as np
import helper

def predict(features):
    '''A model on disk, which may be trained anew while its code stays.'''
    return np.load("weights.npy")[np.newaxis].repeat(len(features), 0) * features[:, :3]

def train(features, labels, seed):
    np.random.seed(seed)  # takes 0 .. 2**32 - 1
    with open("trained.txt", "a") as file:
        file.write("x")
    with open("sizes.txt", "a") as file:
        file.write(f"{len(features)}\\n")
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


def audited(folder: Path, *attacks: str) -> BlackBoxAudit:
    forget()
    named, split = [*attacks] or ["confidence"], {"shadows": 2, "references": 6}
    study: dict[str, Any] = table(folder / "data.npz", attacks=named, split=split)
    return audit_by_functions(
        parse_study(study), "theirs:predict", "theirs:train", folder / "members.npz", Store(folder / "store"), Silent()
    )  # fmt: skip


@pytest.mark.parametrize("columns", [0, 1])
def test_one_number_for_each_record_is_the_log_odds_of_class_1(folder, columns):
    data = np.load(folder / "data.npz")
    x, y = data["x"].astype(np.float32) - 0.5, data["y"] % 2
    np.savez(folder / "data.npz", x=x, y=y)
    body = "    return lambda x: answer(x)\n\ndef predict(x):\n    return answer(x)\n"
    train = "import numpy as np\n\ndef train(x, y, seed):\n" + body
    logits = []
    for answer in (f"x[:, 0{':1' * columns}]", "np.stack([0 * x[:, 0], x[:, 0]], 1)"):
        (folder / "theirs.py").write_text(f"{train}\ndef answer(x):\n    return {answer}\n")
        logits.append(audited(folder).outputs.logits)
    np.testing.assert_array_equal(logits[0], logits[1])


def trainings(folder: Path) -> int:
    return len((folder / "trained.txt").read_text())


def test_a_model_trained_anew_behind_the_same_function_is_asked_anew(folder):
    first = audited(folder)
    np.save(folder / "weights.npy", np.array([3, 2, 1], np.float32))
    second = audited(folder)
    assert not np.array_equal(first.outputs.logits[0], second.outputs.logits[0])
    assert np.array_equal(first.outputs.logits[1:], second.outputs.logits[1:])
    assert first.report.results[0].output.score.tolist() != second.report.results[0].output.score.tolist()
    assert trainings(folder) == 2  # the shadows were stored


def test_shadows_are_trained_anew_when_a_module_that_train_imports_has_changed(folder):
    first = audited(folder)
    (folder / "helper.py").write_text("SCALE = 2.0\n")
    second = audited(folder)
    assert np.array_equal(2 * first.outputs.logits[1:], second.outputs.logits[1:])
    assert trainings(folder) == 4


def test_lira_and_rmia_attack_by_reference_models_of_the_train_function(folder):
    found = audited(folder, "confidence", "lira", "rmia")
    assert list(found.attacks) == ["confidence", "lira", "rmia"]
    assert found.left_out == ()
    assert trainings(folder) == 2 + 6
    assert {name: found.report[name].reference_models for name in found.attacks} == {
        "confidence": 2, "lira": 6, "rmia": 6,
    }  # fmt: skip
    assert found.report["lira"].records.tolist() == found.report["confidence"].records.tolist()


def test_models_of_the_train_function_train_on_as_many_records_as_the_audited_model(folder):
    audited(folder, "confidence", "lira")
    assert set((folder / "sizes.txt").read_text().split()) == {"200"}


def test_members_from_another_source_are_told_by_the_records_alone(folder):
    assert [one["above_chance"] for one in audited(folder).blind] == [False]
    arrays = dict(np.load(folder / "data.npz"))
    arrays["x"][:200, 0] += 5.0
    np.savez(folder / "data.npz", **arrays)
    moved = audited(folder)
    assert [one["above_chance"] for one in moved.blind] == [True]
    results, _ = black_box_results(moved, "theirs:predict", 0)
    assert [note["code"] for note in results["notes"]] == ["loops_unlike", "split_leaks"]


def test_no_shadow_is_trained_where_no_attack_uses_one(folder):
    assert list(audited(folder, "lira").signals) == ["shared"]
    assert trainings(folder) == 6


def test_an_error_in_the_users_function_shows_the_users_lines_and_not_ours(folder):
    (folder / "helper.py").write_text("def __getattr__(name):\n    raise ValueError('no such layer')\n")
    with pytest.raises(InputError, match="ValueError: no such layer") as caught:
        audited(folder)
    line = str(caught.value)
    assert "theirs.py:" in line
    assert "helper.py:2, in __getattr__: raise ValueError('no such layer')" in line
    assert "user_functions.py" not in line
    assert "\n" not in line


def test_the_file_behind_a_predict_function_is_bound_by_its_hash(folder):
    study = table(folder / "data.npz", attacks=["confidence"], split={"shadows": 2})
    arguments = (parse_study(study), "theirs:predict", "theirs:train", folder / "members.npz")
    results, _ = api.audit_functions(*arguments, folder / "out", folder / "store", file=folder / "weights.npy")
    digest = hashlib.sha256((folder / "weights.npy").read_bytes()).hexdigest()
    assert results["runs"][0]["audited_file"] == {"name": "weights.npy", "sha256": digest}
    results, _ = api.audit_functions(*arguments, folder / "other", folder / "store")
    assert "audited_file" not in results["runs"][0]
    with pytest.raises(InputError, match=r"expected the file of the audited model, got .*gone\.pt"):
        api.audit_functions(*arguments, folder / "other", folder / "store", file=folder / "gone.pt")


def test_models_of_another_size_than_the_audited_one_are_noted(folder):
    assert audited(folder, "confidence", "rmia").remarks == ()
    np.savez(folder / "members.npz", members=np.arange(300))
    (note,) = audited(folder, "confidence").remarks
    assert note.code == "unmatched_size"
    assert note.values["kind"] == "shadow models"
    assert note.values["records"] < 300

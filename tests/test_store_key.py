"""Keys: what determines them, and that any change of code that computes is among it."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stored import Role, Window, key
from wemem.errors import InputError
from wemem.store.fingerprint import COMPUTING, PACKAGE, code_fingerprint


@dataclass(frozen=True)
class Door:
    width: float = 0.5
    order: str = "random"


json_values = st.recursive(
    st.sampled_from([None, True, False, 0, 1, -1, 0.0, -0.0, 1.0, 0.1, float("inf"), "", "1", "a", "none"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)


def spelled(value):
    """What makes two JSON values the same, told without JSON."""
    if isinstance(value, dict):
        return ("mapping", sorted((name, spelled(item)) for name, item in value.items()))
    if isinstance(value, list):
        return ("list", [spelled(item) for item in value])
    return (type(value).__name__, repr(value))


@given(json_values, json_values)
def test_keys_are_equal_exactly_when_values_and_their_types_are(a, b):
    assert (key("stage", value=a) == key("stage", value=b)) == (spelled(a) == spelled(b))
    assert key("stage", value=a) == key("stage", value=a)


def test_order_of_a_mapping_does_not_count():
    assert key("stage", a=1, b={"c": 2, "d": 3}) == key("stage", b={"d": 3, "c": 2}, a=1)


def test_one_is_neither_one_point_zero_nor_true_and_zero_has_a_sign():
    values = [1, 1.0, True, "1", [1], 0.0, -0.0, 0, False, None]
    assert len({key("stage", value=value) for value in values}) == len(values)


def test_neighbouring_floats_have_different_keys():
    assert key("stage", rate=0.1) != key("stage", rate=float(np.nextafter(0.1, 1)))


def test_tuple_is_as_good_as_a_list_and_an_enum_as_its_value():
    assert key("stage", seeds=(0, (1, 2))) == key("stage", seeds=[0, [1, 2]])
    assert key("stage", role=Role.TRAIN) == key("stage", role=1)


def test_dataclasses_differ_by_class_and_by_field():
    values = [Window(), Window(width=0.6), Window(order="high_first"), Door(), {"width": 0.5, "order": "random"}]
    assert len({key("stage", defense=value) for value in values}) == len(values)
    assert key("stage", defense=Window()) == key("stage", defense=Window())


def test_stage_names_and_keys_of_other_stages_count():
    first, second = key("dense", seed=0), key("dense", seed=1)
    assert key("round", dense=first) != key("round", dense=second)
    assert key("round", dense=first) == key("round", dense=str(first))
    assert key("round", seed=0) != key("dense", seed=0)
    assert key("stage", a=1) != key("stage", b=1)
    assert key("stage") != key("stage", a=None)


@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("wemem.store.fingerprint.code_fingerprint", lambda: "another program"),
        ("numpy.__version__", "another version"),
        ("scipy.__version__", "another version"),
        ("sklearn.__version__", "another version"),
        ("torch.__version__", "another version"),
        ("torch.get_num_threads", lambda: 77),
        ("torch.backends.cpu.get_cpu_capability", lambda: "another processor"),
    ],
)
def test_program_libraries_threads_and_processor_count(monkeypatch, what, other):
    before = key("stage", a=1)
    monkeypatch.setattr(what, other)
    assert key("stage", a=1) != before


def test_determinant_may_have_any_name():
    assert len({key("stage", **{name: 0}) for name in ("stage", "environment", "determinants", "self", "key")}) == 5


@pytest.mark.parametrize(
    "value",
    [float("nan"), [1, {"a": np.nan}], Path("weights"), np.arange(3), np.int64(1), {1: 2}, {1}, b"x", Window, 1j],
    ids=repr,
)
def test_what_has_no_json_is_refused(value):
    with pytest.raises(InputError, match=r"expected stage\.value.*give a fingerprint"):
        key("stage", value=value)


@pytest.mark.parametrize("stage", ["", "tmp", "..", "a/b", "A", "dense\n", "a.b"])
def test_stage_that_is_no_folder_name_is_refused(stage):
    with pytest.raises(InputError, match="expected a stage named by"):
        key(stage)


def test_any_change_of_code_that_computes_changes_the_fingerprint(tmp_path):
    def fingerprint(name, **files):
        for file, text in files.items():
            path = (tmp_path / name / file.replace("__", "/")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return code_fingerprint(tmp_path / name, ("signals.py", "data"))

    first = fingerprint("first", signals="x = 1", data__split="y = 2", report__html="z", cli="z")
    assert fingerprint("shown", signals="x = 1", data__split="y = 2", report__html="other", cli="other") == first
    assert fingerprint("edited", signals="x = 1", data__split="y = 3") != first
    assert fingerprint("moved", signals="x = 1", data__parts="y = 2") != first
    assert fingerprint("more", signals="x = 1", data__split="y = 2", data__more="x = 1") != first
    documented = '"""Text."""\nx = 1  # why'
    assert fingerprint("documented", signals=documented, data__split='"""Text."""\ny = 2') == first
    assert fingerprint("text", signals='x = """Text."""', data__split="y = 2") != first


def computing_files():
    return {
        path for path in PACKAGE.rglob("*.py")
        if any(path == PACKAGE / name or path.is_relative_to(PACKAGE / name) for name in COMPUTING)
    }  # fmt: skip


def test_every_file_that_writes_to_the_store_is_in_the_fingerprint():
    writes = re.compile(r"\.(put|remember)\(")
    writing = {path for path in PACKAGE.rglob("*.py") if writes.search(path.read_text("utf-8"))}
    writing -= {PACKAGE / "execution/ray.py"}  # puts arrays into the memory of nodes, not into the store
    assert len(writing) > 3
    assert writing <= computing_files()


def test_no_part_of_the_package_is_neither_computing_nor_known_not_to():
    others = {
        "__init__.py", "__main__.py", "api.py", "blocks", "cli", "config", "diagnosis", "errors.py", "evidence",
        "execution",
        "exporting", "integrations", "notes.py", "objects", "reporting", "resolve.py", "results", "store", "study",
        "testing",
    }  # fmt: skip
    known = others | {name.partition("/")[0] for name in COMPUTING}
    assert {path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py")} <= known
    assert all((PACKAGE / name).exists() for name in COMPUTING)

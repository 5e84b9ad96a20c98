"""Names of the user's own code."""

import math
import sys

import pytest

from wemem.errors import InputError
from wemem.resolve import did_you_mean, resolve


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current directory; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_installed_module_is_found():
    assert resolve("math:floor") is math.floor


def test_dotted_attribute_reaches_into_a_class():
    assert resolve("collections:OrderedDict.fromkeys.__name__") == "fromkeys"


def test_module_in_the_current_directory_is_found(here):
    (here / "my_own_defense.py").write_text("class Mine:\n    width = 3\n")
    assert resolve("my_own_defense:Mine.width") == 3


def test_module_written_after_the_first_lookup_is_found(here):
    with pytest.raises(InputError, match="no module 'written_later'"):
        resolve("written_later:value")
    (here / "written_later.py").write_text("value = 1\n")
    assert resolve("written_later:value") == 1


@pytest.mark.parametrize(
    "spec", ["", "math", "math:", ":floor", "math.:floor", "a-b:c", "math:floor:x", "os.path:../x", "math:1"]
)
def test_other_forms_are_refused(spec):
    with pytest.raises(InputError, match=r"expected 'package\.module:name', got"):
        resolve(spec)


def test_misspelt_module_is_named_with_its_neighbour(here):
    (here / "my_own_defense.py").write_text("")
    with pytest.raises(InputError, match="no module 'my_own_defence'; did you mean 'my_own_defense'"):
        resolve("my_own_defence:Mine")


def test_misspelt_submodule_is_named_with_its_neighbour():
    with pytest.raises(InputError, match=r"no module 'wemem\.data\.sorces'; did you mean 'sources'"):
        resolve("wemem.data.sorces:DataSource")


def test_submodule_of_a_plain_module_is_refused():
    with pytest.raises(InputError, match=r"no module 'math\.floor'"):
        resolve("math.floor:x")


def test_misspelt_attribute_is_named_with_its_neighbour():
    with pytest.raises(InputError, match="expected 'flor' in math, got no such name; did you mean 'floor'"):
        resolve("math:flor")


def test_missing_dependency_of_the_users_module_keeps_its_traceback(here):
    (here / "needs_more.py").write_text("import a_package_that_is_not_there\n")
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        resolve("needs_more:thing")


def test_error_in_the_users_module_passes_through(here):
    (here / "broken.py").write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        resolve("broken:thing")


def test_nothing_alike_gives_no_hint():
    assert did_you_mean("zebra", ["digits"]) == ""

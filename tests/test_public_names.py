"""The names that ``wemem`` exports: imported when they are first used, and typed as if they were imported at once."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import wemem


def imports_for_types() -> dict[str, str]:
    """Each name that a type checker sees, with its module."""
    tree = ast.parse(Path(wemem.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    found = {}
    for node in block.body:
        if isinstance(node, ast.ImportFrom):
            found.update({alias.name: str(node.module) for alias in node.names})
    return found


def test_every_public_name_is_the_one_that_a_type_checker_sees():
    assert sorted(imports_for_types()) == sorted(wemem.__all__)
    for name, module in imports_for_types().items():
        assert getattr(wemem, name) is getattr(import_module(module), name)
        assert name in dir(wemem)


@pytest.mark.parametrize("name", ["audit", "export", "report"])
def test_a_function_keeps_its_name_when_the_package_of_that_name_is_imported(name):
    code = f"import wemem, wemem.{name}; from wemem.report.report import write_report; print(wemem.{name}.__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "wemem.objects.commands"


def test_no_public_name_is_a_package():
    packages = {path.parent.name for path in Path(wemem.__file__).parent.glob("*/__init__.py")}
    assert packages & set(wemem.__all__) == {"audit", "export", "report"}
    assert all(callable(getattr(wemem, name)) for name in packages & set(wemem.__all__))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        getattr(wemem, "nonsense")  # noqa: B009


def test_importing_the_package_imports_no_library():
    code = "import sys, wemem; print(*[name for name in ('torch', 'numpy', 'scipy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""

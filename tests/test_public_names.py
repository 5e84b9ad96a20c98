"""The names that ``wemem`` exports: imported when they are first used, and typed as if they were imported at once."""

import ast
from importlib import import_module
from pathlib import Path

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


def test_no_public_name_is_a_package():
    packages = {path.parent.name for path in Path(wemem.__file__).parent.glob("*/__init__.py")}
    assert not packages & set(wemem.__all__)

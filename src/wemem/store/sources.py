"""The user's own sources behind a class or function: its module and, recursively, all that it
imports.

Of the standard library and of this package nothing counts here, and of an installed package its
version.
"""

import ast
import hashlib
import importlib.util
import inspect
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.machinery import all_suffixes
from importlib.metadata import packages_distributions, version
from pathlib import Path
from types import ModuleType

from wemem.errors import InputError
from wemem.files.hashing import sha256_of
from wemem.resolve import Given, import_module, resolve

#: Names of folders of installed packages.
INSTALLED = ("site-packages", "dist-packages")


@cache
def source_fingerprint(thing: object) -> str:
    """SHA-256 of the user's own sources behind a class or function, so that an edited one never
    meets a stale result.

    Read once for every class or function: a file that is edited while the study runs is not what
        runs.

    Raises:
        InputError: no Python file defines it, as with a builtin or a callable object.
    """
    thing = inspect.unwrap(thing) if callable(thing) else thing
    try:
        file = inspect.getsourcefile(thing) if callable(thing) else None
    except (OSError, TypeError):
        file = None
    if file is None or not Path(file).is_file():  # a notebook names files that there are not
        raise InputError(
            f"expected a class or function that a Python file defines, got {thing!r}; write it to a .py file "
            "and import it"
        )
    return _digest(getattr(thing, "__module__", ""), Path(file))


def installed_versions(thing: object) -> dict[str, str] | None:
    """Versions of the installed package that defines a class or function; None for a user's own.

    A library may have thousands of files, which its version stands for.
    """
    try:
        file = inspect.getsourcefile(thing) if callable(thing) else None
    except (OSError, TypeError):
        return None
    top = getattr(thing, "__module__", "").partition(".")[0]
    return (_versions(top) or None) if file is not None and _is_installed(Path(file)) else None


def spec_fingerprint(spec: str | Given) -> str:
    """SHA-256 of the user's own sources behind ``package.module:function``: of the function, and of
    the module named. A :class:`~wemem.resolve.Given` has its own.

    Raises:
        InputError: as :func:`~wemem.resolve.resolve` and :func:`source_fingerprint`.
    """
    if isinstance(spec, Given):
        return spec.fingerprint
    function = source_fingerprint(resolve(spec))
    return sha256_of([function, _module_fingerprint(import_module(spec.partition(":")[0]))])


@cache
def _module_fingerprint(module: ModuleType) -> str:
    return _digest(module.__name__, Path(module.__file__ or ""))


def _digest(module: str, path: Path) -> str:
    files, installed = own_sources(module, path)
    digest = hashlib.sha256(repr(sorted(installed.items())).encode())
    for name, file in sorted(files.items()):
        content = file.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def own_sources(module: str, path: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """The user's files behind a module, and the versions of the installed packages that they
    import.

    Nothing is imported for it, so that the answer is the same in every process. Imports by a
    computed name are not seen.

    Args:
        module: dotted name.
        path: file of the module.

    Returns:
        Files by module name, and versions by the name of the distribution.
    """
    files, installed, waiting = {module: path}, dict[str, str](), [module]
    while waiting:
        name = waiting.pop()
        for imported in _imports(name, files[name]):
            file = _file(imported)
            if imported in files or file is None:
                continue
            if _is_own(imported, file, module):
                files[imported] = file
                waiting.append(imported)
            else:
                installed |= _versions(imported.partition(".")[0])
    return files, installed


def _imports(name: str, path: Path) -> Iterator[str]:
    """Dotted names of the modules that a file may import, and of the packages that they and itself
    are in.
    """
    try:
        tree = ast.parse(path.read_bytes() if path.suffix == ".py" else b"")
    except (SyntaxError, ValueError):  # nobody can import it
        return
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for dotted in (name, *(dotted for node in ast.walk(tree) for dotted in _imported(node, package))):
        parts = dotted.split(".")
        yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def _imported(node: ast.AST, package: str) -> list[str]:
    """Dotted names that one statement or call imports; a name taken from a module may be a module
    too.
    """
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        parts = package.split(".")
        above = parts[: len(parts) - node.level + 1] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        return [base, *(f"{base}.{alias.name}" for alias in node.names)] if base else []
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        function, argument = node.func, node.args[0].value
        called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        if called in ("import_module", "__import__") and isinstance(argument, str):
            return [argument if not argument.startswith(".") else f"{package}{argument}"]
    return []


def _file(name: str) -> Path | None:
    """The file of a module; None for one that is built in, a package without a file, or what is no
    module.
    """
    return _place(name)[0]


def _place(name: str) -> tuple[Path | None, Sequence[str]]:
    """The file of a module, and the folders of its submodules. No package is imported to look into
    it.
    """
    parent, _, leaf = name.rpartition(".")
    if parent:
        return _within(_place(parent)[1], leaf)
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return None, ()
    file = Path(spec.origin) if spec.has_location and spec.origin is not None else None
    return file, list(spec.submodule_search_locations or ())


def _within(folders: Sequence[str], leaf: str) -> tuple[Path | None, Sequence[str]]:
    """As :func:`_place`, of a module in some folders; a package comes before a file and a file
    before a bare folder.
    """
    for folder in folders:
        for stem in (Path(folder, leaf, "__init__"), Path(folder, leaf)):
            for suffix in all_suffixes():
                if (file := stem.with_name(stem.name + suffix)).is_file():
                    return file, [str(stem.parent)] if stem.name == "__init__" else []
    return None, [str(path) for folder in folders if (path := Path(folder, leaf)).is_dir()]


def _is_own(name: str, file: Path, root: str) -> bool:
    """True for a module of the user's: outside of library folders, or beside the root module."""
    top = name.partition(".")[0]
    if top == "wemem" or top in sys.stdlib_module_names:
        return False
    if top == root.partition(".")[0]:
        return True
    return not _is_installed(file)


def _is_installed(file: Path) -> bool:
    """True for a file in a library folder."""
    libraries = [Path(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib")]
    return any(file.is_relative_to(folder) for folder in libraries) or bool(set(INSTALLED) & set(file.parts))


def _versions(top: str) -> dict[str, str]:
    """Versions of the distributions that an installed package belongs to."""
    if top == "wemem" or top in sys.stdlib_module_names:
        return {}
    return {name: version(name) for name in _distributions().get(top, ())}


@cache
def _distributions() -> Mapping[str, list[str]]:
    return packages_distributions()

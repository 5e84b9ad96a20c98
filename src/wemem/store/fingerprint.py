"""Fingerprints: the plain spelling of a settings value, and the environment that computes with it.

A class of this package is spelled by the name that a study gives it, so that moving its file
changes no fingerprint. A class, function or factory of the user's is spelled with the hash of all
of the user's own sources behind it (:mod:`wemem.store.sources`).
"""

import ast
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import sklearn
import torch

from wemem.attacks import ATTACKS
from wemem.attacks.base import Attack
from wemem.defenses import DEFENSES
from wemem.errors import InputError
from wemem.models import MODELS, CustomModel
from wemem.pruning import CRITERIA
from wemem.resolve import Given
from wemem.settings import ADDED
from wemem.store.sources import source_fingerprint, spec_fingerprint

PACKAGE = Path(__file__).parents[1]

#: Packages and files whose code can change a stored result. All others arrange, show or export
#: results.
COMPUTING = (
    "attacks", "auditing", "blocks", "data", "defenses", "diagnosis/arms.py", "exporting/checkpoint.py",
    "exporting/onnx.py", "exporting/shards.py", "exporting/weight_files.py", "exporting/weight_names.py",
    "files", "memorization.py", "metrics", "models", "pipeline", "pruning", "queries.py", "randomness.py",
    "settings.py", "signals.py", "study/attacking.py", "study/black_box.py", "study/loops.py",
    "study/user_functions.py", "training", "tuning",
)  # fmt: skip


def spelled(value: object, where: str = "a setting") -> Any:
    """A value as JSON has it: tuples as lists, dataclasses as mappings that name their kind.

    A field with the metadata :data:`~wemem.settings.ADDED` is left out at its default.

    Args:
        value: None, a boolean, a number, a string, or a sequence, mapping or dataclass of them.
        where: the place of the value, for the message.

    Raises:
        InputError: anything else: NaN, an array, a path.

    >>> spelled({"shape": (2, 0.5)})
    {'shape': [2, 0.5]}
    >>> from wemem.defenses import SlidingWindow
    >>> spelled(SlidingWindow(width=15, stride=1))["kind"]
    'rsw'
    """
    if value is None or (isinstance(value, bool | int | float | str) and value == value):
        return value
    if isinstance(value, Given):  # its fingerprint stands with the value that has it
        return value.name
    if isinstance(value, type):
        raise _unspelled(value, where)
    if is_dataclass(value):
        fields_of = {
            field.name: spelled(getattr(value, field.name), f"{where}.{field.name}")
            for field in fields(value)
            if not (field.metadata == ADDED and getattr(value, field.name) == field.default)
        }
        return {**_kind(value), **fields_of}
    if isinstance(value, Attack):
        return _kind(value)
    if isinstance(value, list | tuple):
        return [spelled(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {name: spelled(item, f"{where}.{name}") for name, item in value.items()}
    raise _unspelled(value, where)


def _unspelled(value: object, where: str) -> InputError:
    return InputError(
        f"expected {where} to consist of numbers, strings, lists and mappings by name, got {value!r}; convert it, or "
        "give a fingerprint of its content"
    )


def _kind(value: Any) -> dict[str, str]:
    """The name of a value's class, with the user's sources behind it where it is the user's."""
    cls = type(value)
    if isinstance(value, CustomModel):
        return {"kind": "factory", "source": spec_fingerprint(value.factory)}
    if cls.__module__.split(".")[0] == "wemem":
        return {"kind": _registered().get(cls, cls.__qualname__)}
    return {"kind": f"{cls.__module__}:{cls.__qualname__}", "source": source_fingerprint(cls)}  # type: ignore[arg-type]


@cache
def _registered() -> Mapping[type, str]:
    """The name of every class that a study can name, by class."""
    registries: Sequence[Mapping[str, type]] = (DEFENSES, ATTACKS, MODELS, CRITERIA)
    return {cls: name for registry in registries for name, cls in registry.items()}


def environment(libraries: Sequence[str] = ()) -> dict[str, Any]:
    """Code, processor, threads and library versions: whatever may change a result without being a
    setting.

    Args:
        libraries: optional distributions that take part in the computation, beside those that
            always do.
    """
    return {
        "code": code_fingerprint(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        **{library.__name__: str(library.__version__) for library in (np, scipy, sklearn, torch)},
        **{name: _installed(name) for name in libraries},
    }


def _installed(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


@cache
def code_fingerprint(package: Path = PACKAGE, computing: Sequence[str] = COMPUTING) -> str:
    """SHA-256 of the code that computes, so that a changed program never meets a stale result.

    Comments, docstrings and layout do not count.

    Args:
        package: the folder of the package; read once in the life of a process.
        computing: names of the packages and files in it that count.
    """
    digest = hashlib.sha256()
    for path in sorted(path for name in computing for path in _python_files(package / name)):
        code = ast.dump(_without_docstrings(ast.parse(path.read_bytes())))
        digest.update(f"{path.relative_to(package).as_posix()}\0{len(code)}\0{code}".encode())
    return digest.hexdigest()


def _python_files(path: Path) -> Sequence[Path]:
    return [path] if path.suffix == ".py" else list(path.rglob("*.py"))


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
    return tree

"""Everything that determines a result, as plain values, and their hash."""

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import sklearn
import torch

from wemem.errors import InputError

PACKAGE = Path(__file__).parents[1]
#: Parts of the package that show results and cannot change one.
SHOWING = ("report", "results", "execution", "api.py", "cli.py")


def plain(value: object, where: str) -> Any:
    """A value as JSON has it: tuples as lists, dataclasses as mappings that name their class.

    Args:
        value: None, a boolean, number or string, or a sequence, mapping or dataclass of them.
        where: what it is, for the message.

    Raises:
        InputError: anything else: NaN, an array, a path.

    >>> plain({"shape": (2, 0.5)}, "model")
    {'shape': [2, 0.5]}
    """
    if value is None or (isinstance(value, bool | int | float | str) and value == value):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        cls = type(value)
        spelled = {field.name: plain(getattr(value, field.name), f"{where}.{field.name}") for field in fields(value)}
        return {"class": f"{cls.__module__}.{cls.__qualname__}", **spelled}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {name: plain(item, f"{where}.{name}") for name, item in value.items()}
    raise InputError(
        f"expected {where} to be made of numbers, strings, lists and mappings by name, got {value!r}; convert it, or "
        "give a fingerprint of what it holds"
    )


def environment() -> dict[str, Any]:
    """What may change a result, if only its rounding, without being anybody's setting."""
    return {
        "code": code_fingerprint(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        **{library.__name__: str(library.__version__) for library in (np, scipy, sklearn, torch)},
    }


@cache
def code_fingerprint(package: Path = PACKAGE) -> str:
    """SHA-256 of the sources that compute, so that a changed program never meets a stale result.

    Args:
        package: the folder of the package; read once in the life of a process.
    """
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package)
        if name.parts[0] not in SHOWING:
            source = path.read_bytes()
            digest.update(f"{name.as_posix()}\0{len(source)}\0".encode() + source)
    return digest.hexdigest()

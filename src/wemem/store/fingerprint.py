"""What tells two models, defenses or attacks apart, as JSON-able values for keys and certificates."""

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wemem.errors import InputError
from wemem.models import CustomModel
from wemem.pruning import Pruning
from wemem.resolve import resolve
from wemem.training import Recipe


def identity(value: object) -> Any:
    """A value spelled out: a dataclass as its class and fields, a user's own class or factory with its source.

    >>> from wemem.defenses import Undefended
    >>> identity(Undefended())
    {'class': 'wemem.defenses.base.Undefended'}
    """
    if is_dataclass(value) and not isinstance(value, type):
        cls = type(value)
        spelled = {"class": f"{cls.__module__}.{cls.__qualname__}"}
        if not cls.__module__.startswith("wemem."):
            spelled["source"] = source_fingerprint(cls)
        if isinstance(value, CustomModel):
            spelled["source"] = source_fingerprint(resolve(value.factory))
        return {**spelled, **{f.name: identity(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, Mapping):
        return {str(name): identity(item) for name, item in value.items()}
    return [identity(item) for item in value] if isinstance(value, tuple | list) else value


def pruning_identity(pruning: Pruning | None) -> Any:
    """How it is pruned; the default method goes without saying, as it did before there was a choice."""
    if pruning is None:
        return None
    plain = {**identity(pruning), "recipe": recipe_identity(pruning.recipe)}
    if not method_identity(pruning):
        del plain["method"]
    return plain


def recipe_identity(recipe: Recipe) -> Any:
    """How models are trained; the default precision goes without saying, as it did before there was a choice."""
    plain = identity(recipe)
    if recipe.precision == "fp32":
        del plain["precision"]
    return plain


def method_identity(pruning: Pruning) -> dict[str, str]:
    """What there is to say of a method that is not the default: which, and whose graph ties its channels together."""
    if pruning.method == "magnitude":
        return {}
    return {"method": pruning.method, "torch_pruning": version("torch-pruning")}


@cache
def source_fingerprint(thing: object) -> str:
    """SHA-256 of the file that defines a class or function, so that an edited one never meets a stale result.

    It is read once for every class or function: a file that is edited while the study runs is not what runs.

    Raises:
        InputError: there is no such file, as for a builtin or an object that can be called.
    """
    try:
        file = inspect.getsourcefile(inspect.unwrap(thing)) if callable(thing) else None
    except TypeError:
        file = None
    if file is None:
        raise InputError(f"expected a class or function that a Python file defines, got {thing!r}; wrap it in one")
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()

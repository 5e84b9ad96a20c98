"""Models and functions of a program in the form that a study takes: by name where there is one,
else as they are.

What is stored under a name is found again as long as the sources behind the name stay the same. A
function of a notebook, a closure or a lambda has no such name, and what it reads besides its
arguments cannot be seen. Its outputs are never reused by another call.
"""

import inspect
import uuid
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import fields
from functools import cache
from typing import Any, cast

from torch import nn

from wemem.errors import InputError
from wemem.files.hashing import sha256_of
from wemem.models import MODELS, CustomModel, Model
from wemem.models.fresh import factory_of
from wemem.models.table import NETWORK, table_input
from wemem.resolve import Given, resolve
from wemem.store.sources import installed_versions, source_fingerprint

#: What a user may give as the architecture.
ArchitectureLike = str | Mapping[str, Any] | nn.Module | Model | Callable[..., nn.Module]


def given_function(function: str | Callable[..., Any]) -> str | Given:
    """Return the name of a function that an importable module defines, else the function itself.

    >>> import math
    >>> given_function(math.floor), given_function("math:floor")
    ('math:floor', 'math:floor')
    """
    if isinstance(function, str):
        return function
    if not callable(function):
        raise InputError(f"expected a function or 'module:function', got {type(function).__name__}; give one")
    return _importable(function) or anonymous(function)


def anonymous(function: Callable[..., Any], name: str | None = None) -> Given:
    """Return a function as one whose outputs no other call may reuse."""
    return Given(name or _name(function), function, uuid.uuid4().hex)


def architecture_of(given: ArchitectureLike) -> tuple[dict[str, Any], Model | None]:
    """Return the table ``[model]``, and the model itself where the table alone does not give it.

    Args:
        given: a kind or ``module:factory``, a table, a model of :mod:`wemem.models`, a factory, or
            a module, of which the architecture is taken and not the weights.

    Raises:
        InputError: something else, or a module whose layers cannot draw new weights.
    """
    if isinstance(given, str):
        return {"kind": given}, None
    if isinstance(given, Mapping):
        return dict(given), None
    if isinstance(given, nn.Module):
        if table_input(given) is not None:  # the preprocessing is fitted anew for every model
            given = given.get_submodule(NETWORK)
        name = type(given).__name__
        return {"kind": name}, CustomModel(Given(name, factory_of(given), _content(given)))
    for kind, cls in MODELS.items():
        if type(given) is cls:
            return {"kind": kind, **{field.name: getattr(given, field.name) for field in fields(given)}}, None
    if isinstance(given, CustomModel) and isinstance(given.factory, str):
        output = {} if given.output is None else {"output": given.output}
        return {"kind": given.factory, **given.arguments, **output}, None
    if not callable(given):
        raise InputError(f"expected a model kind, a torch.nn.Module or a factory of one, got {given!r}; give one")
    if (spec := _importable(given)) is not None:
        return {"kind": spec}, None
    return {"kind": _name(given)}, CustomModel(Given(_name(given), given, _source(given)))


def _importable(function: object) -> str | None:
    """``module:function``, if that leads to the very object in every process."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__":
        return None
    try:
        return f"{module}:{name}" if resolve(f"{module}:{name}") is function else None
    except InputError:
        return None


def _name(function: object) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _content(module: nn.Module) -> str:
    """Fingerprint of an architecture: its layers with their settings, and the sources of their
    classes.
    """
    classes = {type(part) for part in module.modules()}
    sources = sorted(f"{cls.__module__}:{cls.__qualname__} {_source(cast(Hashable, cls))}" for cls in classes)
    return sha256_of([repr(module), sources])


@cache
def _source(thing: Hashable) -> str:
    """Fingerprint of the sources of a class or factory; where there are none, one of this process
    alone.
    """
    if getattr(thing, "__module__", "").partition(".")[0] == "torch":
        return "torch"
    if (installed := installed_versions(thing)) is not None:
        return sha256_of(installed)
    with suppress(InputError):
        return source_fingerprint(thing)
    try:
        return sha256_of(inspect.getsource(thing))  # type: ignore[arg-type]
    except (OSError, TypeError):
        return uuid.uuid4().hex

"""Frozen dataclasses from tables that a user wrote (TOML, command line), checked key by key."""

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from wemem.errors import InputError
from wemem.resolve import did_you_mean

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

#: Metadata of a field that a published settings class was given later. At its default it is no part
#: of a fingerprint, so that certificates of before stay valid.
ADDED: Mapping[str, bool] = {"added": True}


def from_table(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """Create an instance of the dataclass ``cls`` whose fields are the table's keys.

    Args:
        cls: the dataclass; its annotations define the accepted values, and its ``__post_init__``
            may refuse more.
        table: the keys and values, as TOML gives them.
        where: a phrase for the table, for the message.

    Raises:
        InputError: an unknown key, a missing one, or a value of another type or out of range.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Point:
    ...     x: float
    ...     y: float = 0.0
    >>> from_table(Point, {"x": 1}, "point")
    Point(x=1.0, y=0.0)
    >>> from_table(Point, {"x": 1, "yy": 2}, "point")
    Traceback (most recent call last):
        ...
    wemem.errors.InputError: point expected keys among x, y, got 'yy'; did you mean 'y'?
    """
    known = [f.name for f in fields(cls)]
    for key in table:
        if key not in known:
            listed = ", ".join(known) or "none"
            raise InputError(f"{where} expected keys among {listed}, got {key!r}{did_you_mean(key, known)}")
    try:
        instance: T = TypeAdapter(cls).validate_python(dict(table))
        return instance
    except ValidationError as error:
        raise _one_line(error, where) from error


def _one_line(error: ValidationError, where: str) -> InputError:
    first = error.errors(include_url=False)[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        return InputError(f"{where}: {cause}")
    if first["type"] in ("missing", "missing_argument"):
        return InputError(f"{where} expected the key {first['loc'][-1]!r}, got none; add it")
    place = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or part.isidentifier())
    wanted = first["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return InputError(f"{where}: expected {place} to be {wanted}, got {first['input']!r}")

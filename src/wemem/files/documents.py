"""JSON and TOML documents from outside, of limited size, depth and length of numbers."""

import json
import math
import re
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wemem.errors import InputError
from wemem.files.input_files import read_bytes, read_text, shown

#: Bytes of a JSON document. Parsed, the worst of that size takes 0.5 GiB; the results of a study of
#: 100 runs have 1 MB.
JSON_LIMIT = 2**24
#: Bytes of a TOML document; a study has a few thousand.
TOML_LIMIT = 2**18
#: Lists and tables within one another.
DEPTH_LIMIT = 64
#: Digits of a whole number in JSON: as many as 64 bits can need.
DIGITS_LIMIT = 20
#: Whole numbers of 64 bits, with a sign or without.
SMALLEST, LARGEST = -(2**63), 2**64 - 1


#: A TOML key of more parts than tables may be deep; the parser takes the square of their number in
#: time.
LONG_KEY = re.compile(
    rf"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){{{DEPTH_LIMIT}}}""", re.ASCII
)


def read_json(path: str | Path, kind: str, *, limit: int = JSON_LIMIT) -> Any:
    """The value in a JSON file.

    Args:
        path: the path as the user gave it.
        kind: a phrase for the file that is expected, such as ``"results of a study"``.
        limit: the largest number of bytes.

    Raises:
        InputError: a file that cannot be read or is too large, or what :func:`parse_json` refuses.
    """
    return parse_json(read_bytes(path, kind, limit=limit), f"{kind} at {shown(path)}")


def parse_json(text: str | bytes, what: str) -> Any:
    """The value of a JSON text.

    Args:
        text: the document.
        what: a phrase for what the text is, for the message.

    Raises:
        InputError: not JSON, a name twice in one object, numbers that are not finite or have too
            many digits, or lists nested too deep.

    >>> parse_json('{"a": [1, 0.5]}', "an example")
    {'a': [1, 0.5]}
    >>> parse_json("[1e400]", "an example")
    Traceback (most recent call last):
        ...
    wemem.errors.InputError: expected JSON for an example, got a broken document (a number that is not finite: 1e400); \
write it again
    """
    return _parsed_json(text, what, _finite)


def parse_stored_json(text: str | bytes, what: str) -> Any:
    """The value of a JSON text that WeMem has written for itself; its numbers may be infinite or
    not a number.

    Args:
        text: the document.
        what: a phrase for what the text is, for the message.

    Raises:
        InputError: anything else that :func:`parse_json` refuses.

    >>> parse_stored_json("[-Infinity]", "an example")
    [-inf]
    """
    return _parsed_json(text, what, float)


def _parsed_json(text: str | bytes, what: str, number: Callable[[str], float]) -> Any:
    try:
        value = json.loads(
            text, parse_constant=number, parse_float=number, parse_int=_whole, object_pairs_hook=_without_repeats
        )
    except RecursionError as error:
        raise _too_deep(what) from error
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"expected JSON for {what}, got a broken document ({reason}); write it again") from error
    _require_shallow(value, what)
    return value


def read_toml(path: str | Path, kind: str) -> dict[str, Any]:
    """The table in a TOML file.

    Args:
        path: the path as the user gave it.
        kind: a phrase for the file that is expected, such as ``"a study file"``.

    Raises:
        InputError: a file that cannot be read, is too large or is not TOML, or what
            :func:`parse_toml` refuses.
    """
    text = read_text(path, kind, limit=TOML_LIMIT)
    try:
        return parse_toml(text, f"{kind} at {shown(path)}")
    except tomllib.TOMLDecodeError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"expected TOML in {kind} at {shown(path)}, got an error: {reason}") from error


def parse_toml(text: str, what: str) -> dict[str, Any]:
    """The table of a TOML text.

    Args:
        text: the document.
        what: a phrase for what the text is, for the message.

    Raises:
        tomllib.TOMLDecodeError: not TOML.
        InputError: whole numbers of more than 64 bits, or tables nested too deep.

    >>> parse_toml("seeds = [0, 1]", "an example")
    {'seeds': [0, 1]}
    >>> parse_toml("seeds = [0x1ffffffffffffffff]", "an example")
    Traceback (most recent call last):
        ...
    wemem.errors.InputError: expected whole numbers of at most 64 bits in an example, got a larger one; make it smaller
    """
    if LONG_KEY.search(text):
        raise _too_deep(what)
    try:
        table = tomllib.loads(text)
    except RecursionError as error:
        raise _too_deep(what) from error
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:  # a number of thousands of digits, or a date that no calendar has
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"expected numbers and dates that exist in {what}, got an error: {reason}") from error
    _require_shallow(table, what)
    return table


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"a number that is not finite: {text[:20]}")
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; of two values of one name, other programs may read the other one."""
    table = dict(pairs)
    if len(table) < len(pairs):
        name, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"the name {name[:20]!r} twice in one object")
    return table


def _whole(text: str) -> int:
    if len(text.lstrip("-")) > DIGITS_LIMIT:
        raise ValueError(f"a number of {len(text):,} digits")
    return int(text)


def _require_shallow(value: object, what: str) -> None:
    """Refuse values that whoever works on them would have to go too deep for, and whole numbers
    that no array holds.
    """
    level: list[object] = [value]
    for _ in range(DEPTH_LIMIT):
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below += item.values()
            elif isinstance(item, list):
                below += item
            elif isinstance(item, int) and not SMALLEST <= item <= LARGEST:
                raise _too_large(what)
        if not below:
            return
        level = below
    raise _too_deep(what)


def _too_deep(what: str) -> InputError:
    return InputError(f"expected lists and tables at most {DEPTH_LIMIT} deep in {what}, got deeper ones; flatten them")


def _too_large(what: str) -> InputError:
    return InputError(f"expected whole numbers of at most 64 bits in {what}, got a larger one; make it smaller")

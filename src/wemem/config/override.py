"""Single keys of a study set anew, as ``--set key=value`` on the command line."""

import tomllib
from typing import Any

from wemem.errors import InputError
from wemem.files.documents import parse_toml

#: Characters of a user's text that a message shows.
SHOWN = 50


def override_key(table: dict[str, Any], override: str) -> None:
    """Set one key of a study's table.

    Args:
        table: the table, changed in place.
        override: ``key=value`` with dotted keys (``finetune.epochs=5``, ``defenses.1.width=0.5``)
            and a TOML value; a value that is not TOML is taken as text.

    Raises:
        InputError: another form, or a place that the table does not have.

    >>> table = {"finetune": {"epochs": 21}}
    >>> override_key(table, "finetune.epochs=5"); table
    {'finetune': {'epochs': 5}}
    """
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise InputError(f"expected --set key=value, got {override[:SHOWN]!r}; write for example --set seeds=[0,1]")
    try:
        value = parse_toml(f"value = {text}", f"--set {path[:SHOWN]}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = path.strip().split(".")
    node: Any = table
    for part in parents:
        node = node[_index(node, part, path)] if isinstance(node, list) else node.setdefault(part, {})
        if not isinstance(node, dict | list):
            raise InputError(f"--set {path[:SHOWN]}: expected {part!r} to be a table, got {str(node)[:SHOWN]!r}")
    if isinstance(node, list):
        node[_index(node, last, path)] = value
    else:
        node[last] = value


def _index(node: list[Any], part: str, path: str) -> int:
    """The index that a part of a path names in a list."""
    if not (part.isdecimal() and len(part) <= len(str(len(node))) and int(part) < len(node)):
        raise InputError(f"--set {path[:SHOWN]}: expected an index 0..{len(node) - 1}, got {part[:SHOWN]!r}")
    return int(part)

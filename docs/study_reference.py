"""The reference of a study file, written from the settings themselves whenever the site is built."""

import inspect
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from wemem.attacks import ATTACKS
from wemem.config.settings import PruningSettings, ScoreSettings, SelectionSettings, SplitSettings, VictimSettings
from wemem.data.sources import DataSource
from wemem.defenses import DEFENSES
from wemem.models import MODELS
from wemem.pruning import CRITERIA
from wemem.training import DENSE, FINETUNE, Recipe

PAGE = Path(__file__).parent / "reference" / "study-file.md"

TABLES: Mapping[str, type] = {
    "[data]": DataSource, "[split]": SplitSettings, "[scores]": ScoreSettings, "[training]": Recipe,
    "[finetune]": Recipe, "[pruning]": PruningSettings, "[selection]": SelectionSettings, "[victim]": VictimSettings,
}  # fmt: skip
KINDS: Mapping[str, Mapping[str, type]] = {
    "[model]": MODELS, "[[defenses]]": DEFENSES, "attacks": ATTACKS, "[pruning] method": CRITERIA
}  # fmt: skip


def write(_: object = None) -> None:
    """Write the page, if it changed."""
    text = page()
    if not PAGE.exists() or PAGE.read_text("utf-8") != text:
        PAGE.write_text(text, encoding="utf-8")


def page() -> str:
    """The page in Markdown."""
    lines = [
        "# Keys of a study file",
        "",
        "Written from the settings of this version. [](../study.md) explains them.",
        "",
    ]
    for name, cls in TABLES.items():
        values = {"[training]": DENSE, "[finetune]": FINETUNE}.get(name)
        lines += [f"## `{name}`", "", *_rows(cls, values), ""]
    for name, classes in KINDS.items():
        lines += [f"## Settings by kind: `{name}`", ""]
        for kind, cls in classes.items():
            lines += [
                f"### `{kind}`",
                "",
                _plain((inspect.getdoc(cls) or "").split("\n\n")[0]),
                "",
                *_rows(cls, None),
                "",
            ]
    return "\n".join(lines).rstrip() + "\n"


def _rows(cls: type, values: object) -> list[str]:
    described = _arguments(cls)
    own = [field for field in fields(cls) if field.init]
    if not own:
        return ["No settings."]
    return ["| key | default | meaning |", "|---|---|---|"] + [
        f"| `{field.name}` | {_default(field, values)} | {described.get(field.name, '')} |" for field in own
    ]


def _default(field: Any, values: object) -> str:
    if values is not None:
        value = getattr(values, field.name)
    elif field.default is not MISSING:
        value = field.default
    elif field.default_factory is not MISSING:
        value = field.default_factory()
    else:
        return "required"
    return f"`{value!r}`".replace("|", "\\|")


def _arguments(cls: type) -> dict[str, str]:
    """The entries of ``Args`` in the docstrings of a class and its bases, as one line each."""
    found: dict[str, str] = {}
    for base in cls.__mro__:
        section = re.search(r"Args:\n((?: {4}.*\n?|\n)+)", inspect.cleandoc(base.__dict__.get("__doc__") or ""))
        for names, text in re.findall(
            r"^ {4}([\w, ]+): ((?:.*\n?)(?: {5,}.*\n?)*)", section[1] if section else "", re.M
        ):
            for name in names.split(", "):
                found.setdefault(name, _plain(text))
    return found


def _plain(text: str) -> str:
    """Docstring text as Markdown in a cell of a table."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`").replace("|", "\\|")
    return " ".join(text.split())

"""The ``[[defenses]]`` of a study: kinds, settings or grids of them, labels, reference models."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from wemem.config.budget import KIND, Budget
from wemem.defenses import DEFENSES, Chain, Defense, make_defense
from wemem.errors import InputError
from wemem.settings import from_table

#: Keys of an entry that are no settings of its defense.
OWN_KEYS = ("kind", "label", "references", "grid")
#: Settings of one grid; each is a whole pruning per seed.
MOST_SETTINGS = 256


@dataclass(frozen=True)
class DefenseEntry:
    """One entry of ``[[defenses]]``.

    Args:
        kind: as the study has it.
        label: unique in the study.
        candidates: the defense; where the entry has a grid, one for each of its settings; none for
            a budget.
        budget: the budget that stands in place of a defense; None if a defense is named.
        references: reference models of this arm; the study's number if None.
        table: the entry as plain values, defaults spelled out, that gives the same entry again.
    """

    kind: str
    label: str
    candidates: tuple[Defense, ...]
    budget: Budget | None
    references: int | None
    table: Mapping[str, Any]


def read_entries(entries: object) -> list[DefenseEntry]:
    """Entries of a study, labelled by kind, and by settings too where a kind occurs again.

    Raises:
        InputError: an entry without a kind, a setting that its defense refuses, a grid that cannot
            be read, a grid of budgets, or labels that would share a file.

    >>> [entry] = read_entries([{"kind": "ppb", "grid": {"alpha": [1, 2]}}])
    >>> entry.label, [defense.alpha for defense in entry.candidates]
    ('ppb', [1.0, 2.0])
    """
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise InputError(f"expected defenses to be a list, got {entries!r}")
    tables = [{"kind": entry} if isinstance(entry, str) else entry for entry in entries]
    kinds = [entry.get("kind") if isinstance(entry, Mapping) else None for entry in tables]
    made: list[DefenseEntry] = []
    for entry, kind in zip(tables, kinds, strict=True):
        if not isinstance(kind, str):
            raise InputError(f"expected every defense to have a kind, got {entry!r}")
        settings = {key: value for key, value in entry.items() if key not in OWN_KEYS}
        spelled = " ".join([kind, *(f"{key}={value}" for key, value in settings.items())])
        label = str(entry.get("label", kind if kinds.count(kind) == 1 else spelled))
        if file_name(label) in {"dense", *(file_name(other.label) for other in made)}:
            raise InputError(
                f"expected defenses with different labels, and none called dense, got {label!r}; give each a label"
            )
        made.append(_entry(kind, label, settings, entry.get("grid"), _references(label, entry.get("references"))))
    return made


def _entry(kind: str, label: str, settings: dict[str, Any], grid: object, references: int | None) -> DefenseEntry:
    start = {"label": label, "kind": kind, **({} if references is None else {"references": references})}
    if KIND in kind.split("+"):
        if kind != KIND:
            raise InputError(f"expected defenses in the chain {kind!r}, got a budget; give kind = {KIND!r} alone")
        if grid is not None:
            raise InputError(
                f"expected a grid of settings, got one of budgets for {label!r}; each budget finds settings by itself, "
                "so give each an entry and a label of its own"
            )
        budget = from_table(Budget, settings, f"defense {kind!r}")
        return DefenseEntry(kind, label, (), budget, references, {**start, **budget.settings})
    if grid is None:
        defense = make_defense(kind, settings)
        return DefenseEntry(kind, label, (defense,), None, references, {**start, **defense.settings})
    axes = _axes(label, settings, grid)
    candidates = tuple(make_defense(kind, {**settings, **point}) for point in axes)
    if any(one in candidates[:i] for i, one in enumerate(candidates)):
        raise InputError(f"expected different settings in the grid of {label!r}, got one twice; name each value once")
    return DefenseEntry(kind, label, candidates, None, references, {**start, **settings, "grid": grid})


def table_of_defense(defense: Defense) -> dict[str, Any]:
    """Return the entry of a study that gives a defense.

    Raises:
        InputError: a defense that its kind and settings do not give again.

    >>> from wemem.defenses import LabelSmoothing
    >>> table_of_defense(LabelSmoothing(smoothing=0.2))
    {'kind': 'label_smoothing', 'smoothing': 0.2}
    """
    parts = defense.parts if isinstance(defense, Chain) else (defense,)
    kind = "swmr" if defense.name == "swmr" else "+".join(_kind_of(part) for part in parts)
    table = {"kind": kind, **{key: value for key, value in defense.settings.items() if value is not None}}
    if make_defense(kind, {key: value for key, value in table.items() if key != "kind"}) != defense:
        raise InputError(f"expected a defense that its fields determine, got {defense!r}; name it by kind and settings")
    return table


def _kind_of(defense: Defense) -> str:
    cls = type(defense)
    return defense.name if DEFENSES.get(defense.name) is cls else f"{cls.__module__}:{cls.__qualname__}"


def _axes(label: str, settings: Mapping[str, Any], grid: object) -> list[dict[str, Any]]:
    """Every point of a grid, the last key running fastest."""
    if not isinstance(grid, Mapping) or not grid:
        raise InputError(f"expected the grid of {label!r} to be a table such as {{alpha = [1, 2]}}, got {grid!r}")
    for key, values in grid.items():
        if key in settings:
            raise InputError(f"expected {key!r} of {label!r} as a setting or in its grid, got both; leave one out")
        if not isinstance(values, list | tuple) or not values:
            raise InputError(f"expected {key!r} in the grid of {label!r} to be a list of values, got {values!r}")
    if (count := math.prod(len(values) for values in grid.values())) > MOST_SETTINGS:
        raise InputError(
            f"expected at most {MOST_SETTINGS} settings in the grid of {label!r}, got {count}; thin it out"
        )
    return [dict(zip(grid, point, strict=True)) for point in product(*grid.values())]


def _references(label: str, given: object) -> int | None:
    if given is None or (isinstance(given, int) and not isinstance(given, bool)):
        return given
    raise InputError(f"expected references of {label!r} to be a whole number, got {given!r}")


def file_name(label: str) -> str:
    """A label as the beginning of a file's name, the same on every system.

    >>> file_name("rsw width=0.5")
    'rsw_width=0.5'
    """
    return re.sub(r"[^A-Za-z0-9=+.-]+", "_", label).strip(".") or "model"

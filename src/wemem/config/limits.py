"""Limits on the counts in a study, so that a slip of the keyboard is refused at once."""

from collections.abc import Iterator, Mapping
from typing import Any

from wemem.errors import InputError

#: Largest value of a whole number, by the name of the setting, wherever in a study it stands.
LIMITS: Mapping[str, int] = {
    "batch_size": 10_000_000,
    "canaries": 100_000,
    "clusters": 100_000,
    "depth": 1_000,
    "epochs": 1_000_000,
    "finalists": 1_000,
    "held_out": 1_000,
    "hidden": 1_000_000,
    "models": 4_096,
    "references": 4_096,
    "rounds": 1_000,
    "seeds": 2**63 - 1,
    "shadows": 1_024,
    "teachers": 1_000,
    "trials": 100_000,
    "views": 1_000,
    "vocabulary": 100_000_000,
}
#: Largest value of any other whole number.
LARGEST = 2**31 - 1
#: Most values in one list of settings: seeds, sparsities, hidden layers.
MOST_VALUES = 1_000


def require_within_limits(settings: Mapping[str, Any]) -> None:
    """Refuse whole numbers and lists that no study needs.

    Args:
        settings: the tables of a study as plain values.

    Raises:
        InputError: a number above its limit, or a list with more than :data:`MOST_VALUES` values.

    >>> require_within_limits({"split": {"shadows": 5000}})
    Traceback (most recent call last):
        ...
    wemem.errors.InputError: expected split.shadows to be at most 1,024, got 5,000; give a smaller number
    """
    for path, value in _leaves(settings, ()):
        names = [part for part in path if not part.isdecimal()]
        name, place = names[-1] if names else "", ".".join(path)
        if isinstance(value, list):
            if len(value) > MOST_VALUES:
                raise InputError(f"expected at most {MOST_VALUES:,} values of {place}, got {len(value):,}; thin it out")
        elif (limit := LIMITS.get(name, LARGEST)) < value:
            raise InputError(f"expected {place} to be at most {limit:,}, got {value:,}; give a smaller number")


def _leaves(value: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Whole numbers and lists within a value, each with its path."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, (*path, str(name)))
    elif isinstance(value, list):
        yield path, value
        for i, item in enumerate(value):
            yield from _leaves(item, (*path, str(i)))
    elif isinstance(value, int) and not isinstance(value, bool):
        yield path, value

"""Upkeep of a store: the size of its stages, a check of all entries, and the removal of old ones."""

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from wemem.errors import InputError
from wemem.files.input_files import is_folder, shown
from wemem.store.backend import Address, Listed
from wemem.store.entry import DamagedError
from wemem.store.location import store_location
from wemem.store.store import Store

#: Age from which remnants of unfinished entries are surely not being written any more.
UNFINISHED = timedelta(days=1)


@dataclass(frozen=True)
class StageSize:
    """The entries of one stage.

    Args:
        entries: number of complete entries.
        bytes: bytes of all files, those of remnants included.
        unfinished: number of remnants of entries that were never finished.
    """

    entries: int = 0
    bytes: int = 0
    unfinished: int = 0


def existing_store(location: str | Path) -> Store:
    """The store at a location, which is not created.

    Raises:
        InputError: there is no such folder, or the store cannot be opened.
    """
    place = store_location(location)
    if isinstance(place, Path) and not is_folder(place, "a store"):
        raise InputError(f"expected a store at {shown(place)}, got no such folder; give the --store of a command")
    return Store(location)


def sizes(store: Store) -> Mapping[str, StageSize]:
    """The size of every stage, by name."""
    stages: dict[str, StageSize] = {}
    for one in store.listed():
        size = stages.get(one.address.stage, StageSize())
        stages[one.address.stage] = StageSize(
            size.entries + one.complete, size.bytes + one.bytes, size.unfinished + (not one.complete)
        )
    return dict(sorted(stages.items()))


def damaged_entries(store: Store) -> Mapping[Address, str]:
    """The complete entries that are not as they were written, with the reason; every byte is read."""
    addresses = [one.address for one in store.listed() if one.complete]

    def reason(address: Address) -> str | None:
        try:
            store.check(address)
        except DamagedError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(store.backend.at_once) as threads:
        reasons = threads.map(reason, addresses)
        return {address: text for address, text in zip(addresses, reasons, strict=True) if text is not None}


def old_entries(store: Store, age: timedelta | None, stages: Collection[str] = ()) -> list[Listed]:
    """Entries that were written longer ago than an age, and remnants that nobody writes any more.

    Args:
        store: the store.
        age: the age; None for remnants alone.
        stages: the stages to look at; all if empty.
    """
    now = datetime.now(UTC)
    return [
        one
        for one in store.listed()
        if not stages or one.address.stage in stages
        if (now - one.modified > UNFINISHED if not one.complete else age is not None and now - one.modified > age)
    ]


def remove_entries(store: Store, entries: Collection[Listed]) -> None:
    """Remove entries. A process that needs one of them computes it again."""
    with ThreadPoolExecutor(store.backend.at_once) as threads:
        for _ in threads.map(store.remove, [one.address for one in entries]):
            pass

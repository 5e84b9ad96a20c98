"""The commands of ``wemem store``: the size of a store, a check of its entries, removal of old ones."""

from typing import Annotated

import typer
from rich.console import Console

from wemem.cli.printing import print_plainly

store_app = typer.Typer(help="List the stages of a store, verify its entries, and remove old ones.")

Place = Annotated[str, typer.Argument(metavar="STORE", help="A folder, or a URL of s3://, gs:// or az://.")]


@store_app.command()
def ls(store: Place) -> None:
    """Print the number of entries and the bytes of every stage."""
    from wemem.store.upkeep import existing_store, sizes

    stages = sizes(existing_store(store))
    for name, size in stages.items():
        remnants = f", {size.unfinished} unfinished" if size.unfinished else ""
        print_plainly(Console(), f"{name:28} {size.entries:8,} entries {size.bytes:16,} bytes{remnants}")
    entries, total = sum(size.entries for size in stages.values()), sum(size.bytes for size in stages.values())
    print_plainly(Console(), f"{'all':28} {entries:8,} entries {total:16,} bytes")


@store_app.command()
def verify(store: Place) -> None:
    """Read every entry and verify its hashes: exit code 0 if all hold, 1 if one does not.

    A damaged entry does no harm: a command that reads it notices, and computes it again.
    """
    from wemem.store.upkeep import damaged_entries, existing_store

    damaged = damaged_entries(existing_store(store))
    for address, reason in damaged.items():
        print_plainly(Console(), f"damaged: {address.path} ({reason})")
    print_plainly(Console(), f"{len(damaged):,} damaged entries")
    if damaged:
        raise typer.Exit(1)


@store_app.command()
def gc(
    store: Place,
    older_than: Annotated[
        float | None, typer.Option(help="Remove entries that were written more than this many days ago.")
    ] = None,
    stage: Annotated[list[str] | None, typer.Option(help="Remove entries of this stage only; may be repeated.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be removed, and remove nothing.")
    ] = False,
) -> None:
    """Remove remnants of unfinished entries that are a day old, and entries above an age.

    A command that needs a removed entry computes it again.
    """
    from datetime import timedelta

    from wemem.errors import InputError
    from wemem.store.upkeep import existing_store, old_entries, remove_entries

    if older_than is not None and not 0 <= older_than <= 36_500:
        raise InputError(f"expected --older-than between 0 and 36,500 days, got {older_than}; give a number of days")
    opened = existing_store(store)
    age = None if older_than is None else timedelta(days=older_than)
    old = old_entries(opened, age, stage or ())
    if not dry_run:
        remove_entries(opened, old)
    verb = "would remove" if dry_run else "removed"
    print_plainly(Console(), f"{verb} {len(old):,} entries of {sum(one.bytes for one in old):,} bytes")

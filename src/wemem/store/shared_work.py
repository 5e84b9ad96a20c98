"""Numbered pieces of work that any number of processes share through one store, and that survive a kill.

A piece that is done is an entry of the store. One that is being done is a locked byte of a file beside it: the system
lets go of it when the process ends, however it ends, and whoever comes next takes the piece over.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from wemem.errors import InputError
from wemem.store.entry import Entry
from wemem.store.key import Key
from wemem.store.keys import PieceKey
from wemem.store.store import Store

if sys.platform != "win32":
    import fcntl

#: Seconds between two looks at whether another process is done.
PATIENCE = 0.2


class SharedWork:
    """The pieces ``0 .. count - 1`` of one job.

    Args:
        store: where results are kept.
        job: of everything that determines the results, but for the order in which processes take pieces.
        count: of pieces.
    """

    def __init__(self, store: Store, job: Key, count: int) -> None:
        self.store, self.job, self.count = store, job, count

    def key(self, number: int) -> Key:
        """The key of a piece's result."""
        return PieceKey(self.job, number).key()

    def done(self) -> dict[int, Entry]:
        """What is finished, by number, in that order."""
        found = {number: self.store.get(self.key(number)) for number in range(self.count)}
        return {number: entry for number, entry in found.items() if entry is not None}

    def claims(self) -> Iterator[int]:
        """Pieces to do, each held while the caller is at it and left unfinished if the caller gives up.

        Waits for pieces that other processes are at: it ends when all are done.
        """
        while True:
            left = [number for number in range(self.count) if self.store.get(self.key(number)) is None]
            if not left:
                return
            with self._claimed(left) as number:
                if number is None:
                    time.sleep(PATIENCE)
                elif self.store.get(self.key(number)) is None:
                    yield number

    @contextmanager
    def _claimed(self, numbers: list[int]) -> Iterator[int | None]:
        """The first of the pieces that no other process is at, held; None if there is none."""
        folder = self.store.root / "claims"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder / self.job, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise InputError(
                f"cannot write {folder}: {error.strerror}; keep the store elsewhere with --store"
            ) from error
        try:
            yield next((number for number in numbers if _locked(descriptor, number)), None)
        finally:
            os.close(descriptor)


def _locked(descriptor: int, number: int) -> bool:
    if sys.platform == "win32":
        return True  # no such locks: processes do the same piece twice, and the store keeps one result
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
    except OSError:
        return False
    return True

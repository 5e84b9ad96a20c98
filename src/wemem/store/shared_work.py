"""Numbered pieces of work that processes share through one store, and that survive kills.

A finished piece is an entry of the store. A piece in work is a locked byte of a file beside it. The
operating system releases the lock when the process ends, in whatever way, and the next process
takes the piece over.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from wemem.errors import InputError
from wemem.store.entry import Entry
from wemem.store.key import Key, PieceKey
from wemem.store.store import Store

if sys.platform != "win32":
    import fcntl

#: Seconds between two checks whether another process has finished.
PATIENCE = 0.2


class SharedWork:
    """The pieces ``0 .. count - 1`` of one job.

    Args:
        store: keeps the results.
        job: key of everything that determines the results. The order in which processes take pieces
            does not count.
        count: number of pieces.
    """

    def __init__(self, store: Store, job: Key, count: int) -> None:
        self.store, self.job, self.count = store, job, count

    def key(self, number: int) -> Key:
        """The key of a piece's result."""
        return PieceKey(self.job, number).key()

    def done(self) -> dict[int, Entry]:
        """Results of the finished pieces, by number and in that order."""
        entries = {number: self.store.get(self.key(number)) for number in range(self.count)}
        return {number: entry for number, entry in entries.items() if entry is not None}

    def claims(self) -> Iterator[int]:
        """Numbers of pieces to do, each locked until the caller asks for the next one.

        The iterator waits for pieces that other processes work on, and ends when all are finished.
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
        """The first of some pieces that no other process works on, locked; None if there is none."""
        folder = self.store.root / "claims"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder / self.job, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise InputError(
                f"expected a store that can be written, got {error.strerror} for {folder}; move it with --store"
            ) from error
        try:
            yield next((number for number in numbers if _locked(descriptor, number)), None)
        finally:
            os.close(descriptor)


def _locked(descriptor: int, number: int) -> bool:
    if sys.platform == "win32":
        return True  # without locks processes may compute a piece twice; the store keeps one result
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
    except OSError:
        return False
    return True

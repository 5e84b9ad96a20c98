"""Numbered pieces of work that processes share through one store, and that survive kills.

A finished piece is an entry of the store. A process holds the piece that it works on; when it ends,
in whatever way, the next process takes the piece over. Machines that share a bucket do not see what
another one holds: two of them may compute the same piece, and the store keeps one of the results.
"""

import time
from collections.abc import Iterator

from wemem.store.entry import Entry
from wemem.store.key import Key, PieceKey
from wemem.store.store import Store


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
        keys = {number: self.key(number) for number in range(self.count)}
        entries = self.store.get_all(keys.values())
        return {number: entries[key] for number, key in keys.items() if key in entries}

    def claims(self) -> Iterator[int]:
        """Numbers of pieces to do, each held until the caller asks for the next one.

        The iterator waits for pieces that other processes work on, and ends when all are finished.
        """
        while True:
            done = self.done()
            left = [number for number in range(self.count) if number not in done]
            if not left:
                return
            with self.store.claimed(self.job, left) as number:
                if number is None:
                    time.sleep(self.store.backend.patience)
                elif self.store.get(self.key(number)) is None:
                    yield number

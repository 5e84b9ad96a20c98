"""A column of text as token ids, by hashing.

The id of a word is its hash: nothing is fitted, so no record has a part in the ids of another. Two
words may share an id; with the default of 8,192 ids that is one word in five of a vocabulary of
2,000. A word that a model did not train on has an id all the same, with an embedding that is still
as it was drawn, or that of another word.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from wemem.errors import InputError
from wemem.files.tables import numbers_of
from wemem.notes import Note

WORD = re.compile(r"\w+|[^\w\s]")
PADDING = 0


@dataclass(frozen=True)
class Hashing:
    """Token ids of a text: lower-case words and punctuation marks, each by its hash.

    Args:
        tokens: the number of ids of each record; a longer text is cut, a shorter one is filled with
            0 at its end.
        vocabulary: the number of different ids, 0 included.

    >>> Hashing(tokens=5, vocabulary=100).ids("Good, good film")
    [53, 45, 53, 64, 0]
    """

    tokens: int = 64
    vocabulary: int = 8192

    def __post_init__(self) -> None:
        if not 1 <= self.tokens <= 2**16:
            raise InputError(f"data.tokens must be 1 to 65,536, got {self.tokens}; use the length of most texts")
        if not 2 <= self.vocabulary <= 2**24:
            raise InputError(f"data.vocabulary must be 2 to 16,777,216, got {self.vocabulary}; 8192 is the default")

    def ids(self, text: str) -> list[int]:
        """The token ids of one text."""
        ids = [1 + word_hash(word) % (self.vocabulary - 1) for word in WORD.findall(text.lower())[: self.tokens]]
        return ids + [PADDING] * (self.tokens - len(ids))


@lru_cache(maxsize=2**16)
def word_hash(word: str) -> int:
    """A hash of a word that is the same in every process."""
    return int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little")


class Texts:
    """A column of text.

    Args:
        path: the path of the table, for messages.
        name: the name of the column.
        hashing: the rule from words to ids.
    """

    def __init__(self, path: Path, name: str, hashing: Hashing) -> None:
        self.path, self.name, self.hashing, self.cut = path, name, hashing, 0
        self.parts = [np.empty((0, hashing.tokens), np.int64)]

    def add(self, column: pa.Array) -> int:
        """Append the texts of a batch; the number of bytes that their ids take."""
        folded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        texts = [*("" if text is None else str(text) for text in folded.dictionary.to_pylist()), ""]
        places = np.where(numbers_of(folded.is_valid()), np.nan_to_num(numbers_of(folded.indices), nan=-1), -1)
        ids = np.array([self.hashing.ids(text) for text in texts], np.int64).reshape(-1, self.hashing.tokens)
        long = np.array([len(WORD.findall(text)) > self.hashing.tokens for text in texts])
        self.parts.append(ids[places.astype(np.int64)])
        self.cut += int(long[places.astype(np.int64)].sum())
        return self.parts[-1].nbytes

    def finish(self) -> tuple[Int64[np.ndarray, "N L"], tuple[Note, ...]]:
        """The ids of every record, and a note if texts were cut.

        Raises:
            InputError: a text without a word.
        """
        ids = np.concatenate(self.parts)
        empty = (ids == PADDING).all(axis=1)
        if empty.any():
            raise InputError(
                f"{self.path}: expected a text in every record of column {self.name!r}, got none in record "
                f"{int(empty.argmax())}; drop the record"
            )
        if not self.cut:
            return ids, ()
        return ids, (Note("texts_cut", {"cut": self.cut, "texts": len(ids), "tokens": self.hashing.tokens}),)

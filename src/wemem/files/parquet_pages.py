"""Sizes of the pages of Parquet files, read from the pages themselves.

The description at the end of a file states how many bytes each column takes once it is unpacked.
The reader unpacks every page into as many bytes as the header of that page states. A forged file
can state less in its description than in its pages, so both are compared before anything is
unpacked.

A header is a struct in Thrift's compact protocol:
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from collections.abc import Iterator
from typing import Any, BinaryIO

#: Largest page that is unpacked, in bytes; writers make pages of about 1 MiB.
PAGE_LIMIT = 2**28
#: Bytes of a page header; statistics of long texts stand in it.
HEADER_BYTES = 2**16, 2**24
#: Writers differ in whether headers count, so the pages may exceed the description by this.
SLACK = 2**16
#: Structs within one another in a page header: three in a valid one.
DEPTH = 8
#: Field numbers of a page header.
UNCOMPRESSED, COMPRESSED = 2, 3
#: Types of the compact protocol.
BOOLEANS, BYTE, INTEGERS, DOUBLE, BINARY, LISTS, STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 12


def require_true_pages(file: BinaryIO, metadata: Any) -> None:
    """Compare the pages of a file with its description.

    Args:
        file: the open file; its position changes.
        metadata: the description, as pyarrow reads it.

    Raises:
        ValueError: a page that is too large or has a broken header, or pages that unfold to more
            than the description states.
    """
    for group in range(metadata.num_row_groups):
        for place in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(place)
            unfolded = 0
            for size in _page_sizes(file, chunk):
                if not 0 <= size <= PAGE_LIMIT:
                    raise ValueError(f"a page of {size:,} bytes, more than {PAGE_LIMIT:,}")
                unfolded += size
            if unfolded > 2 * chunk.total_uncompressed_size + SLACK:
                raise ValueError("pages that unfold to more bytes than their description states")


def _page_sizes(file: BinaryIO, chunk: Any) -> Iterator[int]:
    """The unpacked size of each page of one column in one row group, by the headers of the pages."""
    start, first = chunk.data_page_offset, chunk.dictionary_page_offset
    at = first if first is not None and 0 < first < start else start
    end = at + chunk.total_compressed_size
    while chunk.num_values and 0 <= at < end:
        size, packed, header = _header(file, at, end)
        yield size
        at += header + packed


def _header(file: BinaryIO, at: int, end: int) -> tuple[int, int, int]:
    """The unpacked and the packed size of the page at a position, and the length of its header."""
    for most in HEADER_BYTES:
        file.seek(at)
        compact = _Compact(file.read(min(most, end - at)))
        try:
            sizes = compact.integers()
        except IndexError:  # the header goes on
            continue
        if UNCOMPRESSED not in sizes or sizes.get(COMPRESSED, -1) < 0:
            break
        return sizes[UNCOMPRESSED], sizes[COMPRESSED], compact.at
    raise ValueError("a page with a broken header")


class _Compact:
    """A reader of Thrift's compact protocol, which raises IndexError where the bytes end."""

    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0

    def integers(self) -> dict[int, int]:
        """The whole numbers among the fields of a struct, by field number."""
        fields = {}
        for number, kind in self._fields():
            if kind in INTEGERS:
                fields[number] = self._whole()
            else:
                self._skip(kind, DEPTH)
        return fields

    def _fields(self) -> Iterator[tuple[int, int]]:
        number = 0
        while (head := self._byte()) != 0:
            number = number + (head >> 4) if head >> 4 else self._whole()
            yield number, head & 15

    def _skip(self, kind: int, depth: int) -> None:
        if depth == 0:
            raise ValueError("a page header that is nested too deep")
        if kind in INTEGERS:
            self._whole()
        elif kind in (BYTE, DOUBLE, BINARY):
            self._pass(1 if kind == BYTE else 8 if kind == DOUBLE else self._varint())
        elif kind in LISTS:
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            self._skip_several(count, head & 15, depth)
        elif kind == STRUCT:
            for _, inner in self._fields():
                self._skip(inner, depth - 1)
        elif kind not in BOOLEANS:  # a map stands in no page header
            raise ValueError("a page with a broken header")

    def _skip_several(self, count: int, kind: int, depth: int) -> None:
        if count > len(self.content):  # each element takes a byte at least
            raise IndexError
        for _ in range(count):
            self._skip(BYTE if kind in BOOLEANS else kind, depth - 1)

    def _pass(self, count: int) -> None:
        self.at += count
        if self.at > len(self.content):
            raise IndexError

    def _byte(self) -> int:
        self.at += 1
        return self.content[self.at - 1]

    def _varint(self) -> int:
        value, shift = 0, 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise ValueError("a page header with a number of more than 64 bits")

    def _whole(self) -> int:
        """A signed whole number, zigzag-encoded."""
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

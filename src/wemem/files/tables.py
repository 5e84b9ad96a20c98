"""CSV and Parquet tables from outside, read batch by batch and within limits."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from jaxtyping import Bool, Int64, Num

from wemem.errors import InputError
from wemem.files.input_files import open_file, shown
from wemem.files.parquet_pages import require_true_pages

#: Columns of a table; pyarrow takes about 5 KB for each before it has read a single record.
COLUMN_LIMIT = 2**16
#: Bytes of the line with the column names, and of the description at the end of a Parquet file.
HEADER_LIMIT, FOOTER_LIMIT = 2**22, 2**25
#: Bytes of a CSV file that are read at a time; a line must fit into it.
BLOCK_BYTES = 2**24
#: Characters that may stand between two values where none is given; the first wins a tie.
DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class CsvFormat:
    """The characters of a CSV file.

    Args:
        delimiter: the character between two values.
        encoding: the name of the encoding of the text, as Python knows it.
        missing: further values, besides the empty one, NA and NaN, that state that a value is
            missing.
        decimal: the decimal point of numbers, ``"."`` or ``","``.

    Raises:
        InputError: a delimiter of several characters, an unknown encoding, or another decimal point.
    """

    delimiter: str = ","
    encoding: str = "utf8"
    missing: tuple[str, ...] = ()
    decimal: str = "."

    def __post_init__(self) -> None:
        if self.decimal not in (".", ",") or self.decimal == self.delimiter:
            raise InputError(
                f"expected '.' or ',' as the decimal point, and another character than the delimiter "
                f"{self.delimiter!r}, got {self.decimal!r}; set data.decimal and data.delimiter"
            )
        if len(self.delimiter) != 1 or not self.delimiter.isascii() or self.delimiter in '"\r\n':
            raise InputError(f"expected a delimiter of one character, got {self.delimiter!r}; use ',' or ';' or '\\t'")
        try:
            wide = len("a".encode(self.encoding)) > 1
        except LookupError as error:
            raise InputError(f"expected the name of an encoding, got {self.encoding!r}; try latin-1") from error
        if wide:
            raise InputError(
                f"expected an encoding of one byte for ASCII, got {self.encoding!r}; save the file as UTF-8"
            )


COMMAS = CsvFormat()


@contextmanager
def open_csv(
    path: Path, kind: str, *, types: Mapping[str, pa.DataType] | None = None, only: Sequence[str] = (),
    form: CsvFormat = COMMAS,
) -> Iterator[Any]:  # fmt: skip
    """Open a CSV file with a header line, as a reader of record batches.

    Args:
        path: the path of the file.
        kind: a phrase for the file that is expected, such as ``"a table"``.
        types: the types of some columns; those of the others are inferred from the first block.
        only: the names of the columns to read; all if empty.
        form: the delimiter and the encoding.

    Raises:
        InputError: a file that cannot be read, too many columns, or content that is no such table.
    """
    read = pa.csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False, encoding=form.encoding)
    parse = pa.csv.ParseOptions(delimiter=form.delimiter)
    absent = [*pa.csv.ConvertOptions().null_values, *form.missing]
    convert = pa.csv.ConvertOptions(
        column_types=dict(types or {}), include_columns=list(only), strings_can_be_null=True,
        null_values=[*absent, *(f" {value}" for value in absent)], decimal_point=form.decimal,
    )  # fmt: skip
    with readable(path, kind), open_file(path, kind) as file:
        _require_short_header(path, kind, file, form.delimiter)
        with pa.csv.open_csv(file, read_options=read, parse_options=parse, convert_options=convert) as table:
            yield table


def likely_delimiter(path: Path, kind: str) -> str:
    """The character of :data:`DELIMITERS` that most often stands in the line of column names,
    outside of quotes; a comma if none does.
    """
    with readable(path, kind), open_file(path, kind) as file:
        line = file.read(HEADER_LIMIT).lstrip(b"\xef\xbb\xbf\r\n").partition(b"\n")[0]
    unquoted = b"".join(line.split(b'"')[::2])
    return max(DELIMITERS, key=lambda character: unquoted.count(character.encode()))


@contextmanager
def open_parquet(path: Path, kind: str, *, read_dictionary: Sequence[str] = ()) -> Iterator[Any]:
    """Open a Parquet file.

    Args:
        path: the path of the file.
        kind: a phrase for the file that is expected, such as ``"a table"``.
        read_dictionary: the names of columns that stay dictionary-encoded.

    Raises:
        InputError: a file that cannot be read, too many columns, or content that is no such table.
    """
    with readable(path, kind), open_file(path, kind) as file:
        _require_short_footer(file)
        with pa.parquet.ParquetFile(
            file, read_dictionary=list(read_dictionary), thrift_container_size_limit=2**20
        ) as table:
            if table.metadata.num_columns > COLUMN_LIMIT:
                raise _too_many_columns(path, kind)
            require_true_pages(file, table.metadata)
            yield table


@contextmanager
def readable(path: Path, kind: str) -> Iterator[None]:
    """Turn every error of pyarrow about a file into one line.

    Raises:
        InputError: whatever pyarrow raises inside the ``with`` block.
    """
    try:
        yield
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, IndexError, OverflowError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:300]
        uneven = re.search(r"Expected \d+ columns, got", reason)
        remedy = "give each line as many values as the first has names" if uneven else "write it again"
        raise InputError(f"{shown(path)}: expected {kind} that can be read, got: {reason}; {remedy}") from error


def unfolded_bytes(table: Any, columns: Sequence[str]) -> int:
    """Bytes of some columns of a Parquet file once they are uncompressed, by the file's own
    description.
    """
    metadata = table.metadata
    return sum(
        chunk.total_uncompressed_size
        for group in range(metadata.num_row_groups)
        for chunk in map(metadata.row_group(group).column, range(metadata.num_columns))
        if chunk.path_in_schema.split(".")[0] in columns
    )


def characters_of(column: Any) -> int:
    """The characters of a column of texts once each record has its own; a dictionary has each text
    once.
    """
    if not pa.types.is_dictionary(column.type):
        return sum(len(text or "") for text in column.to_pylist())
    lengths = np.array([len(str(text)) for text in column.dictionary.to_pylist()] + [0])
    places = np.nan_to_num(numbers_of(column.indices), nan=-1).astype(np.int64)
    return int(lengths[places].sum())


def numbers_of(column: Any) -> Num[np.ndarray, " n"] | Bool[np.ndarray, " n"]:
    """The values of a column of numbers or booleans; NaN for a missing number, false for a missing
    boolean.

    The ``to_numpy`` of pyarrow imports pandas where that is installed, which takes a quarter of a
    second.
    """
    boolean = pa.types.is_boolean(column.type)
    known = column.drop_null() if column.null_count else column
    plain = known.cast(pa.uint8()) if boolean else known
    chunks = [np.from_dlpack(chunk) for chunk in (plain.chunks if isinstance(plain, pa.ChunkedArray) else [plain])]
    values = np.concatenate(chunks) if chunks else np.empty(0)
    values = values.astype(bool) if boolean else values
    if not column.null_count:
        return values
    whole = np.zeros(len(column), bool) if boolean else np.full(len(column), np.nan)
    whole[numbers_of(column.is_valid())] = values
    return whole


def texts_of(column: Any) -> tuple[Int64[np.ndarray, " n"], list[str]]:
    """A dictionary-encoded column of texts, as the index of each value and the texts."""
    chunks = column.unify_dictionaries().chunks
    if not chunks:
        return np.empty(0, np.int64), []
    indices = pa.chunked_array([chunk.indices for chunk in chunks])
    return numbers_of(indices).astype(np.int64), chunks[0].dictionary.to_pylist()


def _require_short_header(path: Path, kind: str, file: BinaryIO, delimiter: str) -> None:
    """Count the columns before pyarrow allocates memory for each of them."""
    head = file.read(HEADER_LIMIT + 1).removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n")
    file.seek(0)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{shown(path)}: expected {kind} of one byte for ASCII, got UTF-16; save the file as UTF-8")
    line, newline, _ = head.partition(b"\n")
    if not newline and len(line) >= HEADER_LIMIT:
        raise InputError(
            f"{shown(path)}: expected {kind} with a line of column names of at most {HEADER_LIMIT:,} bytes, got a "
            "longer one; write the column names in the first line"
        )
    if line.count(b'"') % 2:
        raise InputError(
            f"{shown(path)}: expected {kind} with all column names in the first line, got a name over several lines; "
            "rename that column"
        )
    if line.count(delimiter.encode()) >= COLUMN_LIMIT:
        raise _too_many_columns(path, kind)


def _require_short_footer(file: BinaryIO) -> None:
    """Refuse a Parquet file whose description is longer than any that is needed; pyarrow reads it
    whole.
    """
    length = file.seek(0, 2)
    file.seek(max(0, length - 8))
    footer = int.from_bytes(file.read(4), "little")
    file.seek(0)
    if FOOTER_LIMIT < footer < length:
        raise ValueError(f"a description of {footer:,} bytes at its end")


def _too_many_columns(path: Path, kind: str) -> InputError:
    return InputError(
        f"{shown(path)}: expected {kind} of at most {COLUMN_LIMIT:,} columns, got more; drop some columns"
    )

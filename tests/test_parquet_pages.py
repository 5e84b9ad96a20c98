"""Pages of Parquet files: they are read as pyarrow wrote them, and forged ones are refused before they are unpacked."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from wemem.errors import InputError
from wemem.files.parquet_pages import require_true_pages
from wemem.files.tables import open_parquet

ZEROS = pa.table({"x": np.zeros(300_000)})


def written(table: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file, **options)
    return file.getvalue()


def varint(value: int, length: int = 0) -> bytes:
    """A zigzag varint, filled up to a length with bytes that add nothing."""
    value *= 2
    parts: list[int] = []
    while value > 127 or len(parts) + 1 < length:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def read(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    with open_parquet(path, "a table") as file:
        file.read()


@pytest.mark.parametrize("options", [
    {}, {"compression": "gzip"}, {"compression": "none"}, {"data_page_version": "2.0", "compression": "zstd"},
    {"use_dictionary": False, "data_page_size": 1000}, {"row_group_size": 100, "write_page_index": True},
    {"use_dictionary": False, "write_page_checksum": True},
])  # fmt: skip
def test_every_file_that_pyarrow_writes_is_read(options):
    rows = {"a": np.arange(2000) / 7, "t": ["x" * (i % 300) for i in range(2000)], "n": [None, 1.0] * 1000}
    content = io.BytesIO(written(pa.table({**rows, "l": [[1, 2]] * 2000}), **options))
    require_true_pages(content, pyarrow.parquet.ParquetFile(content).metadata)


def test_pages_that_unfold_to_more_than_the_description_are_refused(tmp_path):
    content = written(ZEROS, compression="zstd", use_dictionary=False)
    size = pyarrow.parquet.ParquetFile(io.BytesIO(content)).metadata.row_group(0).column(0).total_uncompressed_size
    assert varint(size) in content
    forged = content.replace(varint(size), varint(1000, len(varint(size))))
    read(content, tmp_path / "a.parquet")
    with pytest.raises(InputError, match="unfold to more bytes than their description"):
        read(forged, tmp_path / "b.parquet")


def test_a_page_that_is_too_large_is_refused_by_its_header(tmp_path, monkeypatch):
    monkeypatch.setattr("wemem.files.parquet_pages.PAGE_LIMIT", 2**16)
    content = written(ZEROS, compression="zstd", use_dictionary=False, data_page_size=2**30)
    with pytest.raises(InputError, match=r"a page of [\d,]+ bytes, more than 65,536"):
        read(content, tmp_path / "a.parquet")


def test_a_broken_page_header_is_refused(tmp_path):
    content = bytearray(written(ZEROS))
    content[4:12] = b"\xff" * 8
    with pytest.raises(InputError, match=r"page with a broken header|page header with"):
        read(bytes(content), tmp_path / "a.parquet")

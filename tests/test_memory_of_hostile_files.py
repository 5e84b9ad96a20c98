"""Small files that make naive readers take gigabytes: here a process that may grow by 1 GiB reads
them all.
"""

import gzip
import os
import struct
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

import memory_of_hostile_files
from wemem.files.documents import JSON_LIMIT, TOML_LIMIT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="needs limits of address space, and /proc"),
]


def header(kind: bytes, content: bytes, name: str = "p", size: int | None = None) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content) if size is None else size
    return info.tobuf() + content + bytes(-len(content) % 512)


def attribute(key: str, value: str = "") -> bytes:
    text = f" {key}={value}\n"
    length = len(text) + 1
    while len(str(length)) + len(text) != length:
        length = len(str(length)) + len(text)
    return f"{length}{text}".encode()


def archives() -> Iterator[tuple[str, list[bytes]]]:
    """Blocks of archives that unfold to few bytes on disk and many in the memory of a general
    reader.
    """
    keys = [header(tarfile.XGLTYPE, b"".join(attribute(f"k{g}_{i}") for i in range(4500))) for g in range(12)]
    yield "attributes of every file", keys + [header(tarfile.XHDTYPE, attribute("mtime0")) + header(b"0", b"")] * 3000
    yield "long paths", [header(tarfile.GNUTYPE_LONGNAME, b"n" * 65_000) + header(b"0", b"")] * 2_000
    yield "many files", [header(b"0", b"")] * 100_000
    sparse = bytearray(tarfile.TarInfo("s").tobuf(tarfile.GNU_FORMAT))
    sparse[156:157], sparse[482:483] = b"S", b"\1"
    sparse[148:156] = b"%06o\0 " % (256 + sum(sparse[:148]) + sum(sparse[156:]))
    yield "maps of holes", [bytes(sparse)] + [(b"00000000001\0" * 42)[:504] + b"\1" + bytes(7)] * 200_000
    yield "one huge file", [header(b"0", b"", size=2**33)] + [bytes(2**20)] * 260


def documents(limit: int) -> dict[str, bytes]:
    return {
        "lists": b"[" + b",".join([b"[]"] * ((limit - 2) // 3)) + b"]",
        "tables": b"[" + b",".join([b'{"":0}'] * ((limit - 2) // 7)) + b"]",
        "depth": b"[" * (limit // 2) + b"]" * (limit // 2),
        "digits": b"[" + b"9" * (limit - 2) + b"]",
    }


def endless(path: Path, end: bytes = b"") -> None:
    """A file of 6 GiB of zeros that takes no room on disk, and some bytes at its end."""
    with path.open("wb") as file:
        file.truncate(6 * 2**30)
        file.seek(0, os.SEEK_END)
        file.write(end)


def write(folder: Path) -> None:
    hostile = folder / "hostile"

    def place(reader: str, name: str) -> Path:
        (hostile / reader).mkdir(parents=True, exist_ok=True)
        return hostile / reader / name

    for name, blocks in archives():
        with gzip.open(place("tar", f"{name}.tgz"), "wb", 1) as file:
            file.writelines(blocks)
    for name, text in documents(JSON_LIMIT).items():
        place("json", f"{name}.json").write_bytes(text)
    for name, text in documents(TOML_LIMIT - 10).items():
        place("toml", f"{name}.toml").write_bytes(b"a = " + text)
    for reader in ("csv", "members csv", "scores csv"):
        place(reader, "columns.csv").write_text(",".join(f"c{i}" for i in range(1_500_000)) + ",label\n")
        place(reader, "short columns.csv").write_bytes(b"," * 2**22 + b"\n")
        place(reader, "columns in quotes.csv").write_bytes(b'"a\n"' + b"," * 2**24 + b"\n")
        endless(place(reader, "zeros.csv"))
    place("csv", "commas.csv").write_bytes(b"a,y\n" + b"," * 2**24 + b"\n" + b"1,0\n2,1\n" * 9)
    place("csv", "classes.csv").write_text("a,y\n" + "".join(f"1,class{i}\n" for i in range(200_000)))
    place("csv", "long label.csv").write_bytes(b"a,y\n1," + b"x" * 15_000_000 + b"\n2,b\n")
    for reader in ("npz", "members npz", "signals"):
        end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 65535, 65535, 3 * 2**30, 2**31, 0)
        endless(place(reader, "directory.npz"), end)
    for reader in ("parquet", "members parquet", "scores parquet"):
        endless(place(reader, "description.parquet"), struct.pack("<I", 2**31 - 1) + b"PAR1")
    text = pa.DictionaryArray.from_arrays(np.zeros(200_000, np.int32), ["w " * 2**15])
    repeated = pa.table({"i": [str(i) for i in range(200_000)], "t": text, "y": [0, 1] * 100_000})
    pyarrow.parquet.write_table(repeated, place("parquet with text", "one long text.parquet"), compression="zstd")
    table = pa.table({"a": [1.0, 2.0], "y": ["x" * 300_000_000, "b"]})
    pyarrow.parquet.write_table(table, place("parquet", "long label.parquet"), compression="zstd", use_dictionary=False)
    for reader in ("weights", "sparse weights"):
        index = "{" + ",".join(
            f'"{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for i in range(150_000)
        ) + "}"  # fmt: skip
        place(reader, "tensors.safetensors").write_bytes(struct.pack("<Q", len(index)) + index.encode())
        endless(place(reader, "zeros.safetensors"))
    for reader in ("json", "toml", "mat", "tar", "results"):
        endless(place(reader, "zeros.bin"))


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    return subprocess.run(
        [sys.executable, memory_of_hostile_files.__file__, str(folder)],
        env=environment, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip


def test_hostile_files_are_read_or_refused_within_1_gib(tmp_path):
    write(tmp_path)
    names = {f"{path.parent.name}/{path.name}" for path in tmp_path.glob("hostile/*/*")}
    done = run(tmp_path)
    lines = done.stdout.splitlines()
    left = names - {line.split(": ")[0] for line in lines}
    assert not left, f"stopped at one of {sorted(left)[:3]}: {done.stderr[-2000:]}"
    assert done.returncode != 0
    assert "MemoryError" in done.stderr  # the limit stops what grows beyond it
    assert sum(": refused: " in line for line in lines) > len(names) * 2 // 3
    growth = {line.split(": ")[0]: int(line.split()[-2]) for line in lines}
    assert max(growth.values()) < 2**10, growth

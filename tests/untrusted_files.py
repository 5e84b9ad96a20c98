"""Every reader of files from outside, with a valid file of each and hostile ones; one table for all
tests of them.
"""

import atexit
import gzip
import importlib.util
import io
import json
import shutil
import struct
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import safetensors.torch
import scipy.io
import torch

from bound_results import bound_folder
from wemem.config.attack_entries import make_attacks
from wemem.data.loaders.cifar import CIFAR10, load_cifar
from wemem.data.loaders.folder import decode
from wemem.data.loaders.table import TableOptions, read_csv, read_parquet
from wemem.data.preprocessing import Preprocessing
from wemem.data.preprocessing_file import preprocessing_text, read_preprocessing
from wemem.data.table_form import Column, TableForm
from wemem.exporting.onnx import onnx_bytes, read_onnx
from wemem.exporting.sparse import read_sparse, sparse_bytes
from wemem.exporting.weight_files import read_weights
from wemem.files.archive import walk_tgz
from wemem.files.documents import read_json, read_toml
from wemem.files.mapped import map_npy, map_npz
from wemem.files.mat import read_mat
from wemem.files.npz import read_npy, read_npz
from wemem.files.record_tables import read_members
from wemem.memorization import read_scores
from wemem.randomness import generator
from wemem.results import per_record
from wemem.results.folder import SAMPLES, TARGETS
from wemem.results.read import read_results
from wemem.results.target_records import read_targets
from wemem.study.black_box import audit_signals

LIMIT = 2**28


@dataclass(frozen=True)
class Reader:
    """A reader of one kind of file.

    Args:
        suffix: the file name's end.
        read: reads the file at a path; only :class:`~wemem.errors.InputError` may come out.
        valid: makes the content of a valid file.
    """

    suffix: str
    read: Callable[[Path], Any]
    valid: Callable[[], bytes]


def saved(write: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def tgz(*entries: tuple[str, bytes]) -> bytes:
    def write(file: io.BytesIO) -> None:
        with tarfile.open(fileobj=file, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
            for name, content in entries:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))

    return saved(write)


def signals() -> bytes:
    rng = generator(0, "signals of a fuzzed file")
    roles = np.zeros((3, 40), np.int64)
    roles[0, :20], roles[1:, 20:] = np.arange(20) % 2 * 2 + 1, np.arange(20) % 2 * 2 + 1
    logits = rng.normal(size=(3, 40, 3)).astype(np.float32)
    return saved(lambda f: np.savez_compressed(f, logits=logits, labels=np.arange(40) % 3, roles=roles))


def parquet(**columns: Any) -> bytes:
    return saved(lambda f: pyarrow.parquet.write_table(pa.table(columns), f))


def png() -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + bytes(range(12)) for _ in range(4))
    header = struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def walk(path: Path) -> list[bytes]:
    contents: list[bytes] = []
    walk_tgz(path, lambda _, stream: contents.append(stream.read()), size_limit=LIMIT)
    return contents


@cache
def bound() -> Path:
    """A small folder of results with all kinds of records."""
    folder = Path(tempfile.mkdtemp(prefix="wemem-bound-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return bound_folder(folder, {"rsw": 0.5}, members=20, nonmembers=30, attacks=("lira", "rmia"), targets=3)


#: The run of the records of :func:`bound`.
RUNS = [
    {
        "label": "rsw", "seed": 0, "sparsity": 0.6,
        "attacks": {name: {"members": 20, "nonmembers": 30} for name in ("lira", "rmia")},
    }
]  # fmt: skip
ROWS = "a,b,y\n" + "1,2.5,no\n3,-4e1,yes\n" * 5
LINEAR = torch.nn.Linear(3, 2)
WEIGHTS = {"w": torch.tensor([[0.0, 1.0], [0.0, 0.0]]), "b": torch.ones(3)}
RECORDS = "record,score\n" + "".join(f"{i},{i / 7}\n" for i in range(20))

PEOPLE = "age\tjob\ty\n31.5\tcook\tyes\n\tnurse\tno\n40\t\tno\n"
FORM = TableForm((Column("age", missing=True), Column("job", ("cook", "nurse"))))
PREPROCESSING = Preprocessing.fit(FORM, FORM.encode({"age": [3, None, 5], "job": ["cook", "nurse", "cook"]}))


READERS: dict[str, Reader] = {
    "npz": Reader(
        ".npz", lambda p: read_npz(p, ["x", "y"], limit=LIMIT),
        lambda: saved(lambda f: np.savez_compressed(f, x=np.eye(5), y=np.arange(5))),
    ),
    "mat": Reader(
        ".mat", lambda p: read_mat(p, ["X"], limit=LIMIT),
        lambda: saved(lambda f: scipy.io.savemat(f, {"X": np.eye(9), "z": "text"}, do_compression=True)),
    ),
    "tar": Reader(".tgz", walk, lambda: tgz(("a/b", b"x" * 700), ("a/" + "n" * 150, b"y"))),
    "cifar": Reader(
        ".tar.gz", lambda p: load_cifar(CIFAR10, p, records=None, limit=2**30),
        lambda: tgz(("c/test_batch.bin", bytes([1]) + bytes(3072) + bytes([0]) + bytes(3072))),
    ),
    "csv": Reader(".csv", lambda p: read_csv(p, TableOptions(), limit=LIMIT), ROWS.encode),
    "parquet": Reader(
        ".parquet", lambda p: read_parquet(p, TableOptions(), limit=LIMIT),
        lambda: parquet(a=np.arange(9) / 7, b=np.arange(9), y=["no", "yes", "no"] * 3),
    ),
    "parquet with text": Reader(
        ".parquet", lambda p: read_parquet(p, TableOptions(text="t", id="i"), limit=LIMIT),
        lambda: parquet(i=["a", "b", "c"], t=["one word", "a", "two words"], y=[0, 1, 0]),
    ),
    "npy": Reader(
        ".npy", lambda p: read_npy(p, limit=LIMIT), lambda: saved(lambda f: np.save(f, np.eye(5))),
    ),
    "mapped npy": Reader(
        ".npy", lambda p: map_npy(p).sum(), lambda: saved(lambda f: np.save(f, np.eye(5, dtype=np.float32))),
    ),
    "mapped npz": Reader(
        ".npz", lambda p: map_npz(p, "x").sum(), lambda: saved(lambda f: np.savez(f, x=np.eye(5, dtype=np.float32))),
    ),
    "table": Reader(".tsv", lambda p: read_csv(p, TableOptions(), limit=LIMIT), PEOPLE.encode),
    "preprocessing": Reader(".json", read_preprocessing, lambda: preprocessing_text(PREPROCESSING).encode()),
    "json": Reader(".json", lambda p: read_json(p, "an example"),
        lambda: b'{"a": [1, 0.5, {"b": "\\u00e9"}], "c": null}'
    ),
    "toml": Reader(
        ".toml", lambda p: read_toml(p, "an example"),
        lambda: b'seeds = [0, 1]\nwhen = 2020-01-01\n[data]\nsource = "digits"\n[[a]]\nwidth = 0.5\n',
    ),
    "weights": Reader(".safetensors", read_weights, lambda: safetensors.torch.save(WEIGHTS)),
    "sparse weights": Reader(".safetensors", read_sparse, lambda: sparse_bytes(WEIGHTS)),
    "members csv": Reader(".csv", lambda p: read_members(p, 30), RECORDS.encode),
    "members parquet": Reader(
        ".parquet", lambda p: read_members(p, 30), lambda: parquet(record=np.arange(9), note=["a", "b", None] * 3)
    ),
    "members npz": Reader(
        ".npz", lambda p: read_members(p, 30), lambda: saved(lambda f: np.savez(f, members=np.arange(9)))
    ),
    "scores csv": Reader(".csv", lambda p: read_scores(p, 30), RECORDS.encode),
    "scores parquet": Reader(
        ".parquet", lambda p: read_scores(p, 30), lambda: parquet(record=np.arange(9), score=np.arange(9) / 9)
    ),
    "signals": Reader(
        ".npz", lambda p: audit_signals(p, make_attacks(["confidence"]), seed=0), signals
    ),
    "results": Reader(
        ".json", lambda p: read_results(p.rename(p.with_name("results.json")).parent),
        lambda: json.dumps({"schema": "wemem.results/1", "runs": []}).encode(),
    ),
    "records of results": Reader(
        ".parquet", lambda p: per_record.read_scores(p.rename(p.with_name(SAMPLES)).parent, RUNS),
        lambda: (bound() / SAMPLES).read_bytes(),
    ),
    "audits in records": Reader(
        ".parquet", lambda p: per_record.recorded_audits(p.rename(p.with_name(SAMPLES)).parent),
        lambda: (bound() / SAMPLES).read_bytes(),
    ),
    "records of targets": Reader(
        ".parquet", lambda p: [*read_targets(p.rename(p.with_name(TARGETS)).parent, RUNS)],
        lambda: (bound() / TARGETS).read_bytes(),
    ),
    "image": Reader(".png", lambda p: decode(p.read_bytes(), p.name), png),
}  # fmt: skip

if importlib.util.find_spec("onnx") and importlib.util.find_spec("onnxruntime"):
    READERS["onnx"] = Reader(".onnx", read_onnx, lambda: onnx_bytes(LINEAR, np.ones((2, 3), np.float32))[0])

#: Readers whose example is refused for good reasons: it is of the right format and of no study.
REFUSED = {"results"}


def gzipped(content: bytes) -> bytes:
    return gzip.compress(content, 9, mtime=0)

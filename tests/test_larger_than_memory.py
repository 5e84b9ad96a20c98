"""Data that are larger than memory allows stay in a file, and give the same models and answers."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from small_study import table
from wemem import api
from wemem.config.parse import parse_study
from wemem.data import dataset
from wemem.data.sources import load_dataset
from wemem.errors import InputError
from wemem.files.mapped import is_mapped

SMALL = 1e-5  # GiB: less than any of the files
X = np.random.default_rng(0).normal(0, 1, (600, 8)).astype(np.float32)
Y = np.arange(600) % 3


@pytest.mark.parametrize("features", [X, np.arange(1200).reshape(600, 2) % 50])
def test_uncompressed_arrays_are_mapped_and_equal_those_in_memory(tmp_path, features):
    np.savez(tmp_path / "data.npz", x=features, y=Y)
    np.save(tmp_path / "x.npy", features)
    np.save(tmp_path / "y.npy", Y)
    whole = load_dataset(str(tmp_path / "data.npz"))
    for source, options in (("data.npz", {}), ("x.npy", {"label": str(tmp_path / "y.npy")})):
        in_file = load_dataset(str(tmp_path / source), memory_gib=SMALL, **options)
        assert is_mapped(in_file.features)
        assert not is_mapped(whole.features)
        assert in_file.fingerprint == whole.fingerprint
        assert "stay in their file" in str(in_file.notes[0])


@pytest.mark.parametrize("features", [X.astype(np.float64), np.asfortranarray(X), X.astype(">f4")])
def test_arrays_that_cannot_be_mapped_name_the_remedy(tmp_path, features):
    np.savez(tmp_path / "data.npz", x=features, y=Y)
    with pytest.raises(InputError, match=r"expected 'x' uncompressed, float32 or int64 .* raise memory_gib"):
        load_dataset(str(tmp_path / "data.npz"), memory_gib=SMALL)


def test_compressed_arrays_are_refused_as_before(tmp_path):
    np.savez_compressed(tmp_path / "data.npz", x=X, y=Y)
    with pytest.raises(InputError, match="raise memory_gib"):
        load_dataset(str(tmp_path / "data.npz"), memory_gib=SMALL)


def test_mapped_array_with_nan_is_refused(tmp_path):
    x = X.copy()
    x[417, 3] = np.nan
    np.savez(tmp_path / "data.npz", x=x, y=Y)
    with pytest.raises(InputError, match="first at index 417"):
        load_dataset(str(tmp_path / "data.npz"), memory_gib=SMALL)


def test_large_parquet_table_goes_into_a_temporary_file(tmp_path):
    rng = np.random.default_rng(0)
    jobs = [None if i % 7 == 0 else ("cook", "nurse", "smith")[i % 3] for i in range(6000)]
    ages = [None if i % 5 == 0 else float(i) for i in rng.permutation(6000)]
    columns = {"job": jobs, "age": ages, "height": rng.random(6000), "y": np.arange(6000) % 2}
    pq.write_table(pa.table(columns), tmp_path / "people.parquet", row_group_size=50)
    path = str(tmp_path / "people.parquet")
    whole, in_file = load_dataset(path), load_dataset(path, memory_gib=1e-4)
    assert is_mapped(in_file.features)
    assert in_file.table == whole.table
    assert in_file.fingerprint == whole.fingerprint


def test_study_on_a_mapped_file_gives_the_same_results(tmp_path):
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    runs = []
    for limit in (None, SMALL):
        data = {"source": str(tmp_path / "data.npz"), **({} if limit is None else {"memory_gib": limit})}
        study = table(tmp_path / "data.npz", attacks=["confidence"], defenses=["undefended"]) | {"data": data}
        results = api.run(parse_study(study), tmp_path / f"run-{limit}", tmp_path / f"store-{limit}")
        runs.append([(run["accuracy"], run["attacks"]) for run in results["runs"]])
    assert runs[0] == runs[1]


def test_answers_in_parts_are_the_answers_at_once(tmp_path, monkeypatch):
    np.savez(tmp_path / "data.npz", x=np.tile(X, (4, 1)), y=np.tile(Y, 4))
    study = table(tmp_path / "data.npz", attacks=["confidence"], defenses=["undefended"])
    runs = []
    for at_once in (dataset.AT_ONCE, 1):
        monkeypatch.setattr(dataset, "AT_ONCE", at_once)
        results = api.run(parse_study(study), tmp_path / f"run-{at_once}", tmp_path / f"store-{at_once}")
        runs.append([(run["accuracy"], run["attacks"]) for run in results["runs"]])
    assert len(load_dataset(str(tmp_path / "data.npz")).parts(np.arange(2400))) == 3
    assert runs[0] == runs[1]


TRAIN = """
import resource, sys
import numpy as np
import torch
torch.set_num_threads(1)
from wemem import Ensemble, FullyConnected, Recipe, fit, load_dataset, victim_and_shadows
from wemem.data import dataset
dataset.AT_ONCE = 2**24
data = load_dataset(f"{sys.argv[1]}/x.npy", label=f"{sys.argv[1]}/y.npy", memory_gib=0.1)
split = victim_and_shadows(data.labels, 1, seed=0)
resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[2]),) * 2)
try:
    np.ones(data.features.shape, np.float32)
    sys.exit("the limit has no effect")
except MemoryError:
    pass
ensemble = Ensemble.initialize(FullyConnected(hidden=(8,)), data.input_shape, data.classes, [0, 1])
fitted = fit(ensemble, data, split, Recipe(epochs=1, batch_size=512), seeds=[0, 1])
for part in data.parts(np.arange(len(data))):
    logits = fitted.ensemble.logits(data.features[part])
print(logits.shape[2], data.features.nbytes)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are those of Linux")
def test_model_trains_on_a_file_larger_than_the_memory_of_its_process(tmp_path):
    # a file with holes, which takes no space on the disk
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (80_000, 2048)).flush()
    np.save(tmp_path / "y.npy", np.arange(80_000) % 2)
    limit = 600 * 2**20
    done = subprocess.run([sys.executable, "-c", TRAIN, tmp_path, str(limit)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[1]) > limit

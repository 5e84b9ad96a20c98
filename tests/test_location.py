"""Location-30, from wherever it comes."""

import http.server
import io
import tarfile
import threading

import numpy as np
import pytest

import wemem.data.loaders.location
from wemem.data.loaders.location import load_location
from wemem.data.sources import load_dataset
from wemem.errors import InputError


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No local copy, an empty cache, and a network that is not there."""
    monkeypatch.delenv("WEMEM_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(wemem.data.loaders.location, "ARCHIVE_URL", "http://127.0.0.1:9/dataset_location.tgz")
    return tmp_path


@pytest.fixture
def location(shared):
    """The records, in the order of the copy."""
    path = shared / "data" / "location30.npz"
    if not path.is_file():
        pytest.skip("needs ../shared/data/location30.npz, which is not here")
    return path


def published(path, x, y):
    """The archive as it is published: one table, classes from 1, in quotes."""
    text = "".join(
        f'"{label + 1}",{",".join(map(str, row))}\n' for row, label in zip(x.tolist(), y.tolist(), strict=True)
    )
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        info = tarfile.TarInfo("bangkok")
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text.encode()))
    return path


def test_location_is_taken_from_the_folder_that_the_environment_names(location, nowhere, monkeypatch):
    monkeypatch.setenv("WEMEM_DATA", str(location.parent))
    data = load_dataset("location")
    assert (data.features.shape, data.classes, data.name) == ((5010, 446), 30, "location")
    assert load_dataset("location", path=location).fingerprint == data.fingerprint


def test_path_goes_before_the_environment(location, nowhere, monkeypatch):
    monkeypatch.setenv("WEMEM_DATA", str(nowhere))
    assert len(load_dataset("location", path=location)) == 5010


def test_archive_in_another_order_is_the_same_data_set_and_is_fetched_once(location, nowhere, monkeypatch):
    with np.load(location) as arrays:
        archive = published(nowhere / "dataset_location.tgz", arrays["x"][::-1], arrays["y"][::-1])

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(nowhere))

        def log_message(self, *args):
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/dataset_location.tgz"
        monkeypatch.setattr(wemem.data.loaders.location, "ARCHIVE_URL", url)
        fetched = load_location()
        server.shutdown()
        thread.join()
    archive.unlink()
    assert fetched.fingerprint == load_location().fingerprint == load_location(location).fingerprint
    assert (nowhere / "cache" / "wemem" / "dataset_location.tgz").is_file()


def test_one_changed_bit_of_location_is_refused(location, tmp_path):
    with np.load(location) as arrays:
        x, y = arrays["x"], arrays["y"]
    x[17, 3] ^= 1
    np.savez_compressed(tmp_path / "location30.npz", x=x, y=y)
    with pytest.raises(InputError, match="expected the records of Location-30"):
        load_location(tmp_path)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.zeros((5010, 446), np.uint8), np.zeros(5010, np.uint8)),
        (np.full((5010, 446), 2, np.uint8), np.zeros(5010, np.uint8)),
        (np.zeros((5010, 446), np.uint8), np.full(5010, 30, np.uint8)),
        (np.full((5010, 446), np.nan), np.zeros(5010, np.uint8)),
        (np.zeros((10, 446), np.uint8), np.zeros(10, np.uint8)),
        (np.zeros((0, 446), np.uint8), np.zeros(0, np.uint8)),
    ],
)
def test_other_arrays_are_not_location(tmp_path, monkeypatch, x, y):
    np.savez_compressed(tmp_path / "location30.npz", x=x, y=y)
    monkeypatch.setenv("WEMEM_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"Location-30|expected x"):
        load_dataset("location")


@pytest.mark.parametrize("text", ["", '"1",0,1\n', '"31"' + ",0" * 446, "x,y\n", '"1",300\n'])
def test_other_tables_are_not_location(tmp_path, text):
    with tarfile.open(tmp_path / "dataset_location.tgz", "w:gz") as archive:
        info = tarfile.TarInfo("bangkok")
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text.encode()))
    with pytest.raises(InputError, match="expected"):
        load_location(tmp_path)


def test_environment_that_names_a_folder_without_it_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WEMEM_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"expected location30\.npz or dataset_location\.tgz in .*, got neither"):
        load_dataset("location")


def test_offline_message_says_what_to_bring_and_where(nowhere):
    with pytest.raises(InputError) as caught:
        load_dataset("location")
    said = str(caught.value)
    place = nowhere / "cache" / "wemem" / "dataset_location.tgz"
    assert all(part in said for part in ("http://127.0.0.1:9/dataset_location.tgz", str(place), "WEMEM_DATA"))
    assert "\n" not in said


def test_relative_cache_folder_is_ignored_as_its_specification_asks(nowhere, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    monkeypatch.setenv("HOME", str(nowhere / "home"))
    with pytest.raises(InputError, match=str(nowhere / "home" / ".cache" / "wemem")):
        load_dataset("location")

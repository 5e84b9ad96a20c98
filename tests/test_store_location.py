"""Locations of stores: a folder or a URL, and never a secret."""

import sys
from pathlib import Path

import pytest

from s3_server import SECRET, URL
from stored import ARRAYS, META, key, same
from wemem.errors import InputError
from wemem.store.location import location_beside, store_location
from wemem.store.store import Store


@pytest.mark.parametrize(
    "location",
    [
        f"s3://key:{SECRET}@bucket/x", f"s3://bucket/x?sig={SECRET}", "s3://", "s3:///x", "s3://bucket/../x",
        "s3://bucket/a b", "gs://bucket#x", "az://bucket/%2e%2e",
    ],
)  # fmt: skip
def test_url_with_anything_but_a_place_is_refused_and_not_shown(location):
    with pytest.raises(InputError, match=r"expected \w\w://BUCKET/PREFIX") as error:
        store_location(location)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("location", ["http://bucket/x", "ftp://bucket", "file://host/x", "file:///x?y"])
def test_other_urls_are_refused(location):
    with pytest.raises(InputError, match=r"expected (a folder, or a URL|file:///PATH)"):
        store_location(location)


def test_url_in_a_path_is_refused():
    with pytest.raises(InputError, match="expected the URL of a store as a string"):
        store_location(Path("s3://bucket/x"))


def test_file_url_is_a_folder(tmp_path):
    own = key("dense")
    Store(tmp_path.as_uri()).put(own, ARRAYS, META)
    assert same(Store(tmp_path).get(own))


def test_location_is_the_one_given_then_the_environments_then_beside_the_output(monkeypatch):
    monkeypatch.setenv("WEMEM_STORE", URL)
    assert location_beside("here", Path("runs/a")) == "here"
    assert location_beside(None, Path("runs/a")) == URL
    monkeypatch.delenv("WEMEM_STORE")
    assert location_beside(None, Path("runs/a")) == Path("runs/.store")


def test_store_without_its_library_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "wemem.store.bucket_backend", None)
    with pytest.raises(InputError, match=r"s3://studies/ours needs obstore.*pip install 'wemem\[cloud\]'$"):
        Store(URL)

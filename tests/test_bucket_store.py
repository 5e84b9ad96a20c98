"""A store in a bucket, against a real S3 server: what a folder guarantees holds there too."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from s3_server import SECRET, Gate, client, environment, new_bucket, paths_of, s3_server
from test_store import ARRAYS, META, key, same
from wemem.errors import InputError
from wemem.files.documents import JSON_LIMIT
from wemem.files.hashing import sha256_of
from wemem.store.backend import Address
from wemem.store.local_cache import LocalCache
from wemem.store.location import location_beside, store_location
from wemem.store.shared_work import SharedWork
from wemem.store.store import Store

obstore = pytest.importorskip("obstore", reason="wemem[cloud] is not installed")
pytest.importorskip("moto", reason="moto, the S3 server of the tests, is not installed")

URL = "s3://studies/ours"


@pytest.fixture(scope="module")
def server():
    with s3_server() as address:
        yield address


@pytest.fixture
def gate(server, monkeypatch, tmp_path):
    """An empty bucket behind a gate, and an environment that leads there."""
    with Gate(server) as gate:
        for name, value in environment(gate.address, tmp_path / "cache").items():
            monkeypatch.setenv(name, value)
        new_bucket(server, "studies")
        for path in paths_of(client(server, URL)):
            obstore.delete(client(server, URL), path)
        yield gate


@pytest.fixture
def objects(server, gate):
    """The objects themselves, past the gate."""
    return client(server, URL)


@pytest.fixture
def warnings():
    return []


@pytest.fixture
def store(gate, warnings):
    return Store(URL, warnings.append)


def bucket(server):
    return client(server, URL)


def another_machine(monkeypatch, tmp_path, warn=pytest.fail):
    """The same bucket with an empty cache."""
    monkeypatch.setenv("WEMEM_CACHE", str(tmp_path / f"cache-{time.monotonic_ns()}"))
    return Store(URL, warn)


# What was put


def test_an_entry_has_the_bytes_of_a_folders_entry(store, objects, tmp_path):
    own = key("dense", seed=0)
    assert store.get(own) is None
    assert same(store.put(own, ARRAYS, META))
    folder = tmp_path / "folder"
    Store(folder).put(own, ARRAYS, META)
    (there,) = folder.glob("dense/*/*")
    data, meta = (path for path in paths_of(objects) if str(own) in path)
    assert bytes(obstore.get(objects, data).bytes()) == (there / "data.safetensors").read_bytes()
    mine, theirs = json.loads(bytes(obstore.get(objects, meta).bytes())), json.loads((there / "meta.json").read_bytes())
    for content in (mine, theirs):
        del content["created"], content["sha256"]
    assert mine == theirs
    assert Path(data).name == f"{theirs['data']['sha256']}.safetensors"


def test_another_machine_reads_what_was_put_to_the_bit(store, monkeypatch, tmp_path):
    own = key("dense", seed=0)
    store.put(own, ARRAYS, META)
    assert same(another_machine(monkeypatch, tmp_path).get(own))


def test_entry_of_several_parts_comes_back_to_the_bit(store, monkeypatch, tmp_path):
    own, arrays = key("dense"), {"weights": np.random.default_rng(0).random(2_000_000)}  # 16 MB
    store.put(own, arrays, META)
    assert same(another_machine(monkeypatch, tmp_path).get(own), arrays)


def test_first_of_two_writers_stays_and_both_get_it(store, objects, monkeypatch, tmp_path):
    own, other = key("dense"), another_machine(monkeypatch, tmp_path)
    store.put(own, ARRAYS, META)
    assert same(other.put(own, {"weights": np.zeros(1)}, {"seconds": 9}))
    assert same(another_machine(monkeypatch, tmp_path).get(own))
    assert sum(path.endswith("meta.json") for path in paths_of(objects)) == 1


def test_writers_at_the_same_time_agree_on_the_first(store, monkeypatch, tmp_path):
    stores = [another_machine(monkeypatch, tmp_path) for _ in range(4)]
    own, start, entries = key("dense"), threading.Barrier(4), []

    def write(number):
        start.wait()
        entries.append(stores[number].put(own, {"by": np.array(number)}, {"by": number}))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = {entry.meta["by"] for entry in entries}
    found = another_machine(monkeypatch, tmp_path).get(own)
    assert found is not None
    assert found.arrays["by"] == found.meta["by"] == winner


def test_deleted_entry_leaves_no_object_and_its_holder_can_read_it(store, objects, monkeypatch, tmp_path):
    own = key("dense")
    entry = store.put(own, ARRAYS, META)
    store.delete(own)
    store.delete(own)
    assert store.get(own) is None
    assert another_machine(monkeypatch, tmp_path).get(own) is None
    assert paths_of(objects) == ["wemem-store.json"]
    assert same(entry)


# Look-ups


def test_look_ups_list_nothing_and_are_made_at_once(store, gate):
    keys = [key("dense", seed=seed) for seed in range(64)]
    for own in keys[::2]:
        store.put(own, {}, {})
    gate.seen.clear()
    together, most, lock = 0, 0, threading.Lock()

    def arrive(number):
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        time.sleep(0.05)

    def leave(number):
        nonlocal together
        with lock:
            together -= 1

    gate.before, gate.after = arrive, leave
    assert store.present(keys) == frozenset(keys[::2])
    assert len(gate.seen) == 64
    assert all(request.startswith("HEAD") for request in gate.seen)
    assert most > 8


def test_entries_are_read_at_once_and_missing_ones_are_left_out(store, monkeypatch, tmp_path):
    keys = [key("dense", seed=seed) for seed in range(6)]
    for seed, own in enumerate(keys[:4]):
        store.put(own, {"seed": np.array(seed)}, {})
    entries = another_machine(monkeypatch, tmp_path).get_all(keys)
    assert {own: int(entry.arrays["seed"]) for own, entry in entries.items()} == {k: i for i, k in enumerate(keys[:4])}


def test_cache_is_read_first_and_without_a_request(store, gate):
    own = key("dense")
    store.put(own, ARRAYS, META)
    gate.seen.clear()
    assert same(store.get(own))
    assert gate.seen == []


# What is not believed


def rewritten(objects, path, change):
    content = bytearray(bytes(obstore.get(objects, path).bytes()))
    obstore.put(objects, path, bytes(change(content)))


def flipped(content):
    content[-1] ^= 1
    return content


DAMAGES = {
    "data has a flipped bit": lambda o, data, meta: rewritten(o, data, flipped),
    "data is truncated": lambda o, data, meta: rewritten(o, data, lambda c: c[:20]),
    "data is longer": lambda o, data, meta: rewritten(o, data, lambda c: c + b"?"),
    "no data": lambda o, data, meta: obstore.delete(o, data),
    "meta is truncated": lambda o, data, meta: rewritten(o, meta, lambda c: c[:99]),
    "meta is empty": lambda o, data, meta: obstore.put(o, meta, b"{}"),
    "meta is a list": lambda o, data, meta: obstore.put(o, meta, b"[]"),
    "meta is deep": lambda o, data, meta: obstore.put(o, meta, b"[" * 100_000),
    "meta is no text": lambda o, data, meta: obstore.put(o, meta, b"\xff\xfe"),
    "meta is huge": lambda o, data, meta: obstore.put(o, meta, b" " * (JSON_LIMIT + 1)),
    "meta was changed": lambda o, data, meta: rewritten(o, meta, lambda c: c.replace(b"1.5", b"1.6")),
    "meta names another place": lambda o, data, meta: sealed(o, meta, {"sha256": "../../" + "a" * 58, "bytes": 1}),
    "meta names a negative size": lambda o, data, meta: sealed(o, meta, {"sha256": "a" * 64, "bytes": -1}),
    "meta names a huge size": lambda o, data, meta: sealed(o, meta, {"sha256": Path(data).stem, "bytes": 2**60}),
}


def sealed(objects, meta, data):
    content = json.loads(bytes(obstore.get(objects, meta).bytes()))
    del content["sha256"]
    content["data"] = data
    obstore.put(objects, meta, json.dumps({"sha256": sha256_of(content), **content}).encode())


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_entry_is_never_used_but_removed_and_written_again(store, objects, monkeypatch, tmp_path, damage):
    own, warnings = key("dense"), list[str]()
    store.put(own, ARRAYS, META)
    data, meta = (path for path in paths_of(objects) if str(own) in path)
    damage(objects, data, meta)
    other = another_machine(monkeypatch, tmp_path, warnings.append)
    assert other.get(own) is None
    (warning,) = warnings
    assert warning.startswith(f"removed a damaged entry from the store, it is computed again: {URL}/dense/")
    assert "\n" not in warning
    assert paths_of(objects) == ["wemem-store.json"]
    assert same(other.put(own, ARRAYS, META))
    assert same(another_machine(monkeypatch, tmp_path).get(own))


def test_entry_of_another_key_is_not_taken_for_this_one(store, objects, monkeypatch, tmp_path):
    mine, other, warnings = key("dense", seed=0), key("dense", seed=1), list[str]()
    store.put(other, ARRAYS, META)
    for path in paths_of(objects):
        if str(other) in path:
            there = f"{Address.of(mine).path}/{Path(path).name}"
            obstore.put(objects, there, bytes(obstore.get(objects, path).bytes()))
    assert another_machine(monkeypatch, tmp_path, warnings.append).get(mine) is None
    assert "another key" in warnings[0]


def test_damaged_entry_of_the_cache_is_read_from_the_bucket_again(store, gate, tmp_path, warnings):
    own = key("dense")
    store.put(own, ARRAYS, META)
    (cached,) = (tmp_path / "cache").glob("*/dense/*/*/data.safetensors")
    cached.write_bytes(cached.read_bytes()[:-1] + b"?")
    gate.seen.clear()
    assert same(store.get(own))
    assert len(gate.seen) == 2
    assert warnings == []
    assert same(store.get(own))
    assert len(gate.seen) == 2


# Kills

WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from test_store import ARRAYS, META, key
from wemem.store.store import Store
Store(sys.argv[2]).put(key("dense"), ARRAYS, META)
"""


@pytest.mark.slow
def test_killed_at_any_request_an_entry_is_absent_or_whole(gate, objects, monkeypatch, tmp_path):
    own, left = key("dense"), []
    tests = str(Path(__file__).parent)
    # the first request opens the store; then come the arrays, then their description
    for moment, number in (("before", 2), ("before", 3), ("after", 3)):
        gate.seen.clear()
        paths_of_python = os.pathsep.join(sys.path)
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, tests, URL], env={**os.environ, "PYTHONPATH": paths_of_python}
        )

        def kill(seen, number=number, writer=writer):
            if seen != number:
                return None
            writer.kill()
            writer.wait()
            return 0.0  # the request is lost too

        setattr(gate, moment, kill)
        assert writer.wait(120) == -9
        gate.before = gate.after = lambda number: None
        left.append([Path(path).suffix for path in paths_of(objects) if str(own) in path])
        other = another_machine(monkeypatch, tmp_path)
        assert (other.get(own) is not None) == (".json" in left[-1])
        assert same(other.put(own, ARRAYS, META))
        assert same(another_machine(monkeypatch, tmp_path).get(own))
        other.delete(own)
    assert left == [[], [".safetensors"], [".safetensors", ".json"]]


# A storage that does not answer


def test_storage_that_answers_503_for_a_while_is_waited_for(gate, warnings):
    own, until = key("dense"), time.monotonic() + 1.5
    gate.before = lambda number: 503 if time.monotonic() < until else None
    store = Store(URL, warnings.append)
    until = time.monotonic() + 1.5
    assert same(store.put(own, ARRAYS, META))
    assert store.present([own]) == {own}
    assert sum(request.startswith("PUT") for request in gate.seen) > 3


def test_every_kind_of_request_survives_a_503(store, gate, monkeypatch, tmp_path):
    own = key("dense")
    gate.before = lambda number: 503 if number % 2 else None
    store.put(own, ARRAYS, META)
    other = another_machine(monkeypatch, tmp_path)
    assert other.present([own]) == {own}
    assert same(other.get(own))
    assert len(list(other.backend.listed())) == 1
    other.delete(own)
    assert another_machine(monkeypatch, tmp_path).get(own) is None


def test_silent_storage_is_asked_again(gate, monkeypatch, warnings):
    monkeypatch.setattr("wemem.store.bucket.SILENCE", 0.5)
    store = Store(URL, warnings.append)
    gate.seen.clear()
    silent = {1, 3}  # once for the arrays, and once for their description
    gate.before = lambda number: 1.0 if number in silent else None
    assert same(store.put(key("dense"), ARRAYS, META))
    assert len(gate.seen) >= 4


def test_created_entry_whose_answer_was_lost_is_taken_for_what_it_is(gate, monkeypatch, warnings):
    monkeypatch.setattr("wemem.store.bucket.SILENCE", 0.5)
    store = Store(URL, warnings.append)
    gate.seen.clear()
    gate.after = lambda number: time.sleep(1.0) if number == 2 else None  # meta.json is there, the writer does not know
    assert same(store.put(key("dense"), ARRAYS, META))
    assert warnings == []


@pytest.mark.parametrize("answer", [503, 500, 30.0], ids=str)
def test_storage_that_never_answers_is_one_line_after_a_limit(gate, monkeypatch, answer):
    monkeypatch.setenv("WEMEM_STORE_PATIENCE", "1")
    gate.before = lambda number: answer
    began = time.monotonic()
    line = rf"^expected the storage of {URL} to answer, got [^\n]*run the same command"
    with pytest.raises(InputError, match=line) as error:
        Store(URL)
    assert SECRET not in str(error.value)
    assert error.value.__suppress_context__  # a traceback would show the library's own text
    assert time.monotonic() - began < 20


def test_storage_that_is_not_there_is_one_line(monkeypatch, gate):
    monkeypatch.setenv("WEMEM_STORE_PATIENCE", "0.5")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"^expected the storage of [^\n]* to answer, got no connection for"):
        Store(URL)


@pytest.mark.parametrize("answer", [401, 403])
def test_refused_credentials_are_one_line_at_once(gate, answer):
    gate.before = lambda number: answer
    with pytest.raises(InputError, match=rf"^expected a store at [^\n]*got the answer {answer}[^\n]*credentials"):
        Store(URL)
    assert len(gate.seen) == 1


def test_bucket_that_is_not_there_is_one_line_before_anything_is_computed(gate):
    with pytest.raises(InputError, match=r"^expected a store at s3://nobody/here [^\n]*404 Not Found \(NoSuchBucket\)"):
        Store("s3://nobody/here")


def test_storage_that_overwrites_is_refused(gate, monkeypatch):
    ask = Gate._ask

    def without_condition(self, method, path, headers, body):
        return ask(self, method, path, {n: v for n, v in headers.items() if n.lower() != "if-none-match"}, body)

    monkeypatch.setattr(Gate, "_ask", without_condition)
    with pytest.raises(InputError, match=r"expected a storage that can create an object only where there is none"):
        Store(URL)


def test_listing_that_breaks_off_is_begun_again(store, gate, monkeypatch):
    monkeypatch.setattr("wemem.store.bucket.SILENCE", 0.5)
    for seed in range(3):
        store.put(key("dense", seed=seed), {}, {})
    patient = Store(URL)
    gate.seen.clear()
    gate.before = lambda number: 1.0 if number == 1 else None
    assert len(patient.listed()) == 3
    assert len(gate.seen) == 2


def test_googles_client_goes_through_the_same_cycle(server, objects, monkeypatch, tmp_path):
    """Google's interface is that of S3 but for a few headers, which the gate translates here."""
    signed = "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"

    class Translator(Gate):
        def _ask(self, method, path, headers, body):
            condition = {"If-None-Match": "*"} if headers.get("x-goog-if-generation-match") == "0" else {}
            kept = {name: value for name, value in headers.items() if name.lower() != "authorization"}
            return super()._ask(method, unquote(path), {**kept, **condition, "Authorization": signed}, body)

    own = key("dense")
    with Translator(server) as google:
        account = {"gcs_base_url": google.address, "disable_oauth": True, "client_email": "", "private_key": ""}
        (tmp_path / "account.json").write_text(json.dumps({**account, "private_key_id": ""}))
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "account.json"))
        monkeypatch.setenv("GOOGLE_BASE_URL", google.address)
        store = Store("gs://studies/ours", pytest.fail)
        assert store.get(own) is None
        assert same(store.put(own, ARRAYS, META))
        monkeypatch.setenv("WEMEM_CACHE", str(tmp_path / "another"))
        other = Store("gs://studies/ours", pytest.fail)
        assert same(other.put(own, {"weights": np.zeros(1)}, {}))
        assert other.present([own]) == {own}
        assert len(other.listed()) == 1
        other.delete(own)
        other.delete(own)
        assert other.get(own) is None
    assert paths_of(objects) == ["wemem-store.json"]


# The cache


def test_cache_stays_below_its_limit_and_keeps_what_was_used_last(store, monkeypatch, tmp_path):
    keys = [key("dense", seed=seed) for seed in range(12)]
    monkeypatch.setenv("WEMEM_CACHE_SIZE", "60KB")
    monkeypatch.setenv("WEMEM_CACHE", str(tmp_path / "small"))
    small, entries = Store(URL), []
    for own in keys:
        entries.append(small.put(own, {"weights": np.zeros(1000)}, {}))  # 8 KB each
        small.get(keys[0])
        cached = [path for path in (tmp_path / "small").rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in cached) < 62_000
    left = {path.parent.name for path in (tmp_path / "small").rglob("meta.json")}
    assert {str(keys[0]), str(keys[-1])} <= left
    assert str(keys[1]) not in left
    assert all(entry.arrays["weights"].sum() == 0 for entry in entries)  # whoever holds one can read it
    assert len(small.get_all(keys)) == 12


def test_cache_that_another_limit_filled_is_trimmed_when_it_is_opened(store, monkeypatch, tmp_path):
    for seed in range(4):
        store.put(key("dense", seed=seed), {"weights": np.zeros(1000)}, {})
    monkeypatch.setenv("WEMEM_CACHE_SIZE", "20KB")
    Store(URL)
    assert len(list((tmp_path / "cache").rglob("meta.json"))) == 2


def test_full_disk_empties_the_cache_and_then_goes_on(store, monkeypatch, tmp_path):
    for seed in range(3):
        store.put(key("dense", seed=seed), ARRAYS, META)
    sync, failures = os.fsync, [True]

    def full_once(descriptor):
        if failures:
            failures.pop()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return sync(descriptor)

    monkeypatch.setattr(os, "fsync", full_once)
    assert same(store.put(key("dense", seed=3), ARRAYS, META))
    assert len(list((tmp_path / "cache").rglob("meta.json"))) == 1
    assert len(store.get_all([key("dense", seed=seed) for seed in range(4)])) == 4


def test_disk_that_stays_full_is_one_line_and_leaves_no_entry(store, objects, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store.put(key("dense", seed=0), ARRAYS, META)
    before = paths_of(objects)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=r"^expected a store at s3://[^\n]*No space left[^\n]*WEMEM_CACHE$"):
            store.put(key("dense", seed=1), ARRAYS, META)
    assert paths_of(objects) == before


def test_caches_of_two_storages_with_buckets_of_one_name_are_apart(store, server, monkeypatch, tmp_path):
    own = key("dense")
    store.put(own, ARRAYS, META)
    with s3_server() as another:
        monkeypatch.setenv("AWS_ENDPOINT_URL", another)
        new_bucket(another, "studies")
        assert Store(URL).get(own) is None
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize("size", ["", "many", "-1", "1PB", "1e9"])
def test_cache_size_that_is_none_is_refused(monkeypatch, tmp_path, size):
    monkeypatch.setenv("WEMEM_CACHE", str(tmp_path))
    monkeypatch.setenv("WEMEM_CACHE_SIZE", size)
    with pytest.raises(InputError, match="expected a size such as 20GB in WEMEM_CACHE_SIZE"):
        LocalCache.of("any")


# Shared work


def test_processes_of_one_machine_hold_pieces_and_another_machine_begins_elsewhere(store, monkeypatch, tmp_path):
    job, begun = key("job"), []
    first, second = (SharedWork(one, job, 64).claims() for one in (store, Store(URL)))
    begun = [next(first), next(second)]
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    third = SharedWork(another_machine(monkeypatch, tmp_path), job, 64).claims()
    assert len({*begun, next(third)}) >= 2


def test_piece_that_two_machines_compute_has_one_result(store, monkeypatch, tmp_path):
    job = key("job")
    works = [SharedWork(one, job, 1) for one in (store, another_machine(monkeypatch, tmp_path))]
    numbers = [next(work.claims()) for work in works]
    assert numbers == [0, 0]
    entries = [work.store.put(work.key(0), {}, {"by": by}) for by, work in enumerate(works)]
    assert [entry.meta["by"] for entry in entries] == [0, 0]
    assert [list(work.claims()) for work in works] == [[], []]


# Locations


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

"""A store in a bucket whose storage fails or stays silent, whose cache is full, and whose work machines share."""

import errno
import json
import os
import time
from urllib.parse import unquote

import numpy as np
import pytest

from s3_server import SECRET, URL, Gate, another_machine, new_bucket, paths_of, s3_server
from small_study import table, write_data
from stored import ARRAYS, META, key, same
from wemem.config.parse import parse_study
from wemem.errors import InputError
from wemem.execution.graph import phase_graph
from wemem.execution.program import StudyProgram
from wemem.execution.worker import Worker, task_message
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Silent
from wemem.store.local_cache import LocalCache
from wemem.store.shared_work import SharedWork
from wemem.store.store import Store

obstore = pytest.importorskip("obstore", reason="wemem[cloud] is not installed")
pytest.importorskip("moto", reason="moto, the S3 server of the tests, is not installed")


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


def test_task_whose_result_was_removed_from_the_bucket_leaves_it_there_again(store, monkeypatch, tmp_path):
    """The cache of this machine still has it, which is no use to the others."""
    config = parse_study(table(write_data(tmp_path), training={"epochs": 1}, attacks=["confidence"]))
    data, program = config.data.load(), StudyProgram(config)
    phase = next(program.phases(store, data))
    node = phase_graph(phase, Pipeline.open(config, data, store, Silent())).nodes[0]
    first, second = (Worker(program, URL, Silent(), data) for _ in range(2))
    first.perform(task_message(node))
    assert store.present(node.stores) == frozenset(node.stores)
    other = another_machine(monkeypatch, tmp_path)
    other.remove(other.listed()[0].address)
    assert not store.present(node.stores)
    second.perform(task_message(node))
    assert store.present(node.stores) == frozenset(node.stores)


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

"""Studies on a store in a bucket: the results are those of a folder, and a secret stays one."""

import json
import os
import subprocess
import sys

import pytest

from s3_server import SECRET, client, environment, paths_of
from small_study import as_toml, table, without_times, write_data

pytestmark = pytest.mark.slow
obstore = pytest.importorskip("obstore", reason="wemem[cloud] is not installed")
pytest.importorskip("moto", reason="moto, the S3 server of the tests, is not installed")

URL = "s3://studies/shared"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    study = table(
        write_data(folder), attacks=["confidence"], defenses=["undefended"], pruning={"rounds": 2},
        training={"epochs": 2, "batch_size": 64}, finetune={"epochs": 1, "batch_size": 64},
    )  # fmt: skip
    (folder / "study.toml").write_text(as_toml(study))
    return folder


def started(folder, out, *arguments, **variables):
    """A command in the folder, which another one may run beside."""
    return subprocess.Popen(
        [sys.executable, "-m", "wemem", "run", "study.toml", "--out", out, *arguments],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", **variables},
    )  # fmt: skip


def results(folder, out):
    """The files of an output directory but for times."""
    files = {path.relative_to(folder / out).as_posix(): path.read_bytes() for path in (folder / out).rglob("*.*")}
    return {**files, "results.json": without_times(json.loads(files["results.json"]))}


@pytest.fixture(scope="module")
def outputs(server, folder):
    """What is printed by two commands with a cache each on one bucket, one of them with two
    processes, and by one with a folder.
    """
    first = started(
        folder, "one", "--store", URL, "--jobs", "2", "--debug", **environment(server, folder / "cache-one")
    )
    second = started(folder, "two", WEMEM_STORE=URL, **environment(server, folder / "cache-two"))
    plain = started(folder, "plain", "--store", "store")
    printed = [process.communicate(timeout=300)[0] for process in (first, second, plain)]
    assert [process.returncode for process in (first, second, plain)] == [0, 0, 0], printed
    return printed


def test_two_processes_on_one_bucket_end_with_the_bytes_of_a_folder(folder, outputs):
    plain = results(folder, "plain")
    assert results(folder, "one") == plain
    assert results(folder, "two") == plain
    assert len(plain) > 3


def test_a_later_run_on_another_machine_computes_nothing(server, folder, outputs):
    run = started(folder, "again", "--store", URL, **environment(server, folder / "cache-again"))
    printed, _ = run.communicate(timeout=300)
    assert run.returncode == 0, printed
    assert results(folder, "again") == results(folder, "plain")
    created = [path.read_bytes() for path in (folder / "cache-again").rglob("meta.json")]
    assert len(created) > 3
    known = {path.read_bytes() for name in ("one", "two") for path in (folder / f"cache-{name}").rglob("meta.json")}
    assert set(created) <= known


def test_a_secret_in_the_environment_is_nowhere(server, folder, outputs):
    refused = started(
        folder, "no", "--store", "s3://nobody/here", "--debug", **environment(server, folder / "cache-no")
    )
    printed = [*outputs, refused.communicate(timeout=300)[0]]
    assert refused.returncode == 2
    assert "NoSuchBucket" in printed[-1]
    objects = client(server, URL)
    stored = [bytes(obstore.get(objects, path).bytes()) for path in paths_of(objects)]
    written = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert len(stored) > 6
    assert len(written) > 15
    contents = [*(text.encode() for text in printed), *stored, *written]
    assert not any(SECRET.encode() in content for content in contents)
    assert not any(b"tester" in content for content in contents)
    assert not any(SECRET in str(path) for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("url", "variables"),
    [
        ("gs://bucket/x", {"GOOGLE_SERVICE_ACCOUNT_KEY": "{}"}),
        ("az://container/x", {}),
        ("az://container/x", {"AZURE_STORAGE_ACCOUNT_NAME": "ours", "AZURE_STORAGE_ACCOUNT_KEY": SECRET}),
    ],
)
def test_other_storages_fail_on_one_line_without_the_secret(monkeypatch, url, variables):
    from wemem.errors import InputError
    from wemem.store.bucket import Bucket
    from wemem.store.location import BucketUrl, store_location

    for name, value in {"WEMEM_STORE_PATIENCE": "0.5", **variables}.items():
        monkeypatch.setenv(name, value)
    place = store_location(url)
    assert isinstance(place, BucketUrl)
    with pytest.raises(InputError) as error:
        Bucket.open(place).create("x", b"")
    assert "\n" not in str(error.value)
    assert url in str(error.value)
    assert SECRET not in str(error.value)


def test_profile_gives_the_credentials_that_the_environment_does_not(server, tmp_path, monkeypatch):
    from wemem.store.bucket import Bucket
    from wemem.store.location import BucketUrl

    pytest.importorskip("boto3", reason="boto3 is not installed")
    (tmp_path / "credentials").write_text(f"[lab]\naws_access_key_id = lab\naws_secret_access_key = {SECRET}\n")
    (tmp_path / "config").write_text("[profile lab]\nregion = us-east-1\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_PROFILE", "lab")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("WEMEM_STORE_PATIENCE", "5")
    bucket = Bucket.open(BucketUrl("s3", "studies", "profile"))
    assert bucket.create("x", b"1")
    assert bucket.read("x", 10) == b"1"

"""Settings and fixtures that all tests share."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from hypothesis import HealthCheck, settings

from heard_signals import let_children_hear

let_children_hear()

# One thread per process: test processes run side by side, and sums come out the same on every machine.
torch.set_num_threads(1)

# The same examples in every run, and no output that depends on how fast the machine is.
settings.register_profile(
    "ci", deadline=None, derandomize=True, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data and golden cases beside the project; a test that needs it is skipped where it is absent."""
    folder = Path(__file__).resolve().parents[1].parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the data folder ../shared, which is not here")
    return folder


@pytest.fixture
def unchecked_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes are not checked in a test that passes a wrong one, to see that it is refused in one line."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of an S3 server in a process of its own, with the bucket ``studies``."""
    pytest.importorskip("obstore", reason="wemem[cloud] is not installed")
    pytest.importorskip("moto", reason="moto, the S3 server of the tests, is not installed")
    from s3_server import new_bucket, s3_server

    with s3_server() as address:
        new_bucket(address, "studies")
        yield address


@pytest.fixture
def gate(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A gate before the server, an environment that leads there, and nothing below ``s3://studies/ours``."""
    import obstore

    from s3_server import Gate, client, environment, paths_of

    with Gate(server) as gate:
        for name, value in environment(gate.address, tmp_path / "cache").items():
            monkeypatch.setenv(name, value)
        objects = client(server, "s3://studies/ours")
        for path in paths_of(objects):
            obstore.delete(objects, path)
        yield gate


@pytest.fixture
def objects(server: str, gate: Any) -> Any:
    """The objects below ``s3://studies/ours``, past the gate."""
    from s3_server import client

    return client(server, "s3://studies/ours")


@pytest.fixture
def warnings() -> list[str]:
    """What a store warns of."""
    return []


@pytest.fixture
def store(gate: Any, warnings: list[str]) -> Any:
    """A store in the bucket, behind the gate."""
    from wemem.store.store import Store

    return Store("s3://studies/ours", warnings.append)

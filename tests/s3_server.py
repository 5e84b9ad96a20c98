"""A real S3 server in a process of its own, and a gate before it that can fail, stall and kill."""

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from wemem.store.store import Store

URL = "s3://studies/ours"
SECRET = "sesame-7f3a9c-open"


@contextmanager
def s3_server() -> Iterator[str]:
    """Start moto's server.

    Yields:
        Its address.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        began = time.monotonic()
        while time.monotonic() - began < 60:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/data.json", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def new_bucket(address: str, name: str) -> None:
    """Create a bucket."""
    urllib.request.urlopen(urllib.request.Request(f"{address}/{name}", method="PUT"), timeout=30).close()


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, address: Any) -> None:
        """Say nothing where a client has gone."""


class Gate:
    """A server that passes requests on to another one.

    Args:
        address: the other server.

    Attributes:
        seen: method and path of every request so far.
        before: called with the number of a request, from 1, before it is passed on. It returns None
            to pass it on, a status to answer with that, or seconds after which to hang up.
        after: called with the number of a request once the other server has answered.
    """

    def __init__(self, address: str) -> None:
        self.seen: list[str] = []
        self.before: Callable[[int], int | float | None] = lambda number: None
        self.after: Callable[[int], object] = lambda number: None
        self._target = address.removeprefix("http://")
        self._lock = threading.Lock()
        self._server = _QuietServer(("127.0.0.1", 0), self._handler())
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Gate":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        gate = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with gate._lock:
                    gate.seen.append(f"{self.command} {self.path}")
                    number = len(gate.seen)
                verdict = gate.before(number)
                if isinstance(verdict, float):
                    time.sleep(verdict)
                    self.close_connection = True
                    return
                if verdict is not None:
                    self._answer(verdict, {}, b"")
                    return
                status, headers, content = gate._ask(self.command, self.path, dict(self.headers), body)
                gate.after(number)
                self._answer(status, headers, content)

            def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
                self.send_response_only(status)
                for name, value in headers.items():
                    if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                        self.send_header(name, value)
                length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
                self.send_header("Content-Length", length)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _pass  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler

    def _ask(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:  # fmt: skip
        connection = http.client.HTTPConnection(self._target, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()


def environment(address: str, cache: object) -> dict[str, str]:
    """Variables that lead a process to a server, with a secret among them."""
    return {
        "AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": f"{SECRET}-token",
        "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": address, "WEMEM_CACHE": str(cache),
        "WEMEM_STORE_PATIENCE": "20",
        "PATH": os.environ["PATH"],
    }  # fmt: skip


def client(address: str, url: str) -> Any:
    """The objects of a bucket, as the library gives them."""
    from obstore.store import from_url

    options: Any = {"allow_http": True}
    return from_url(
        url, endpoint=address, region="us-east-1", access_key_id="other", secret_access_key="other",
        client_options=options,
    )  # fmt: skip


def paths_of(objects: Any) -> list[str]:
    """The paths of all objects."""
    import obstore

    return sorted(one["path"] for page in obstore.list(objects) for one in page)


def another_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, warn: Callable[[str], object] = pytest.fail
) -> Store:
    """The store of the tests with an empty cache."""
    monkeypatch.setenv("WEMEM_CACHE", str(tmp_path / f"cache-{time.monotonic_ns()}"))
    return Store(URL, warn)

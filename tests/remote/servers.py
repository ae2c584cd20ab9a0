"""Servers on loopback: files over HTTP with ranges, S3 by moto, and a proxy with a seeded schedule of faults."""

import hashlib
import http.client
import json
import logging
import random
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

BUCKET = "clips"
AWS = {"AWS_ACCESS_KEY_ID": "KEY-OF-TESTS", "AWS_SECRET_ACCESS_KEY": "top-secret", "AWS_REGION": "us-east-1"}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that has gone


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def answer(self, status: int, headers: dict[str, str], body: bytes, *, sent: int | None = None) -> None:
        """Answer; `sent` bytes of the body alone if it is to be truncated."""
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) if sent is None else sent])
        if sent is not None:
            self.close_connection = True


@contextmanager
def _served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def file_server(root: Path, *, etags: bool = True) -> Iterator[str]:
    """Serve the files of a folder, with ranges."""

    class Handler(_Handler):
        def do_GET(self) -> None:
            path = root / unquote(urlsplit(self.path).path).lstrip("/")
            if not path.is_file():
                return self.answer(404, {}, b"absent")
            content = path.read_bytes()
            headers = {"ETag": f'"{hashlib.md5(content).hexdigest()}"'} if etags else {}
            requested_range = self.headers.get("Range")
            if requested_range is None:
                return self.answer(200, headers, content)
            first, last = requested_range.removeprefix("bytes=").split("-")
            piece = content[int(first) : int(last) + 1]
            headers["Content-Range"] = f"bytes {first}-{int(first) + len(piece) - 1}/{len(content)}"
            return self.answer(206, headers, piece)

        do_HEAD = do_GET

    with _served(Handler) as address:
        yield address


@contextmanager
def hub_server(root: Path) -> Iterator[str]:
    """Serve a folder as the dataset owner/name of the Hugging Face Hub."""
    files = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*"))}
    entries = {
        name: {
            "type": "file" if path.is_file() else "directory",
            "path": name,
            "size": path.stat().st_size if path.is_file() else 0,
            "oid": hashlib.sha1(name.encode()).hexdigest(),
        }
        for name, path in files.items()
    }

    class Handler(_Handler):
        def do_GET(self) -> None:
            place = unquote(urlsplit(self.path).path)
            api = "/api/datasets/owner/name"
            if place.startswith(f"{api}/tree/main"):
                folder = place.removeprefix(f"{api}/tree/main").strip("/")
                inside = [entry for name, entry in entries.items() if name.startswith(folder and f"{folder}/")]
                if "recursive=True" not in self.path and "recursive=true" not in self.path:
                    inside = [entry for entry in inside if "/" not in entry["path"].removeprefix(folder).strip("/")]
                return self.answer_json(inside)
            if place.startswith(f"{api}/paths-info/"):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                names = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
                return self.answer_json([entries[name] for name in names if name in entries])
            if place.startswith(api):
                return self.answer_json({"id": "owner/name", "sha": "0" * 40})
            path = files.get(place.partition("/resolve/main/")[2])
            if path is None:
                return self.answer(404, {"X-Error-Code": "EntryNotFound"}, b"")
            content, headers = path.read_bytes(), {}
            if requested_range := self.headers.get("Range"):
                first, last = map(int, requested_range.removeprefix("bytes=").split("-"))
                headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
                content = content[first : last + 1]
            return self.answer(206 if headers else 200, headers, content)

        def answer_json(self, content: Any) -> None:
            self.answer(200, {"Content-Type": "application/json"}, json.dumps(content).encode())

        do_HEAD = do_POST = do_GET

    with _served(Handler) as address:
        yield address


class Faults:
    """A schedule of faults, by the number of the request: at most `count`, of a share of all requests."""

    KINDS = ("500", "503", "dropped", "truncated", "wrong tag", "stalled")

    def __init__(self, *, count: int, share: float, seed: int = 0, kinds: tuple[str, ...] = KINDS, stall: float = 1.5):
        self._rng, self._lock = random.Random(seed), threading.Lock()
        self._left, self._share, self._kinds = count, share, kinds
        self.stall_seconds = stall
        self.counts: Counter[str] = Counter()
        self.requests = 0

    @property
    def total(self) -> int:
        """The number of faults so far."""
        return sum(self.counts.values())

    def next(self) -> str | None:
        """Return the fault of the next request."""
        with self._lock:
            self.requests += 1
            if self._left <= 0 or self._rng.random() >= self._share:
                return None
            self._left -= 1
            kind = self._rng.choice(self._kinds)
            self.counts[kind] += 1
            return kind


@contextmanager
def proxy(upstream: str, *, faults: Faults | None = None, latency_seconds: float = 0.0) -> Iterator[str]:
    """Forward requests to another server, later and with faults."""
    faults = faults or Faults(count=0, share=0)
    host = urlsplit(upstream).netloc

    class Handler(_Handler):
        upstream: http.client.HTTPConnection | None = None

        def finish(self) -> None:
            if self.upstream is not None:
                self.upstream.close()
            super().finish()

        def forward(self) -> None:
            fault = faults.next() if self.command == "GET" else None
            time.sleep(latency_seconds)
            if fault in ("500", "503"):
                return self.answer(int(fault), {}, b"fault")
            if fault == "dropped":
                self.close_connection = True
                return None
            if fault == "stalled":
                time.sleep(faults.stall_seconds)
                self.close_connection = True
                return None
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            status, received, content = self.fetch(headers, body)
            if fault == "wrong tag" and "ETag" in received:
                received["ETag"] = '"0123456789abcdef"'
            sent = len(content) // 2 if fault == "truncated" and content else None
            return self.answer(status, received, content, sent=sent)

        def fetch(self, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
            for attempt in range(2):
                connection = self.upstream = self.upstream or http.client.HTTPConnection(host)
                try:
                    connection.request(self.command, self.path, body=body or None, headers=headers)
                    response = connection.getresponse()
                    content = response.read()
                    break
                except (http.client.HTTPException, OSError):
                    connection.close()
                    self.upstream = None
                    if attempt:
                        raise
            skipped = ("content-length", "transfer-encoding", "connection", "date", "server")
            received = {name: value for name, value in response.getheaders() if name.lower() not in skipped}
            if self.command == "HEAD":
                content = bytes(int(response.headers.get("Content-Length") or 0))
            return response.status, received, content

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward

    with _served(Handler) as address:
        yield address


@contextmanager
def s3_server(root: Path, *, bucket: str = BUCKET) -> Iterator[str]:
    """Run moto's S3 server with a bucket of the files of a folder."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    try:
        _put(f"{address}/{bucket}", b"")
        for path in sorted(root.rglob("*")):
            if path.is_file():
                _put(f"{address}/{bucket}/{quote(path.relative_to(root).as_posix())}", path.read_bytes())
        yield address
    finally:
        server.stop()


def _put(url: str, content: bytes) -> None:
    headers = {"Content-Type": "application/octet-stream", "x-amz-acl": "public-read"}  # a form is read to its end
    request = urllib.request.Request(url, data=content or None, method="PUT", headers=headers)
    with urllib.request.urlopen(request) as response:
        response.read()

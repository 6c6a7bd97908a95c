"""Web servers on this machine: nginx, which counts what it sends, and one that misbehaves."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

CONFIGURATION = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  log_format bytes '$request_method $status $bytes_sent $uri $http_range';
  access_log {folder}/access.log bytes;
  client_body_temp_path {folder}/t1;
  proxy_temp_path {folder}/t2;
  fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4;
  scgi_temp_path {folder}/t5;
  server {{
    listen 127.0.0.1:{port};
    root {served};
  }}
}}
"""


@dataclass(frozen=True)
class Request:
    """One that nginx answered, with `sent` bytes, headers included."""

    method: str
    status: int
    sent: int
    name: str


@dataclass(frozen=True)
class Nginx:
    """Serves a folder at `url`."""

    url: str
    log: Path

    def requests(self) -> list[Request]:
        """All so far."""
        found = [line.split()[:4] for line in self.log.read_text().splitlines()]
        return [Request(method, int(status), int(sent), name[1:]) for method, status, sent, name in found]


@contextmanager
def nginx(served: Path, folder: Path) -> Iterator[Nginx]:
    """nginx with `served`, its own files in `folder`. Skips the test where there is none."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("needs nginx")
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(CONFIGURATION.format(user=user, folder=folder, served=served, port=port))
    command = [program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    with subprocess.Popen(command) as process:
        try:
            wait_for(port)
            yield Nginx(f"http://127.0.0.1:{port}", folder / "access.log")
        finally:
            process.terminate()


@contextmanager
def misbehaving(served: Path) -> Iterator[str]:
    """A server whose URLs begin with what it does: /404/, /403/, /hang/ (never answers), /cut/ (ends its answers in the
    middle, beyond the first ones), /plain/ (knows no ranges), /ok/."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Misbehaving,), {"served": served}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def store(folder: Path) -> Iterator[dict[str, str]]:
    """An object store like S3, whose buckets are folders; yields the environment by which GDAL finds it. Nothing can be
    put into the bucket `full`, `closed` says nothing of what it has, and `slow` takes a minute to take something."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Store,), {"served": folder}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "here"}
    try:
        yield keys | {
            "AWS_S3_ENDPOINT": f"127.0.0.1:{server.server_address[1]}",
            "AWS_HTTPS": "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE",
        }
    finally:
        server.shutdown()
        server.server_close()


class _Misbehaving(BaseHTTPRequestHandler):
    served: Path
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        _, way, name = self.path.split("?")[0].split("/")
        if way == "hang":
            time.sleep(60)
        elif way.isdigit():
            self.send_response(int(way))
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            with suppress(OSError):  # the client may have gone
                self._send(way, (self.served / name).read_bytes())

    do_HEAD = do_GET  # noqa: N815, its name in the library

    def _send(self, way: str, content: bytes) -> None:
        asked = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if way != "plain" else None
        first, last = (int(asked[1]), min(int(asked[2]), len(content) - 1)) if asked else (0, len(content) - 1)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(last - first + 1))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        body = content[first : last + 1]
        cut = way == "cut" and first > 40_000
        self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection = cut

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


class _Store(_Misbehaving):
    def do_GET(self) -> None:
        path = self.served / self.path.split("?")[0].strip("/")
        if not path.is_file() or "closed" in path.parts:
            self._answer(403 if "closed" in path.parts else 404)
            return
        with suppress(OSError):
            self._send("ok", path.read_bytes())

    do_HEAD = do_GET  # noqa: N815

    def do_PUT(self) -> None:
        path = self.served / self.path.split("?")[0].strip("/")
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if path.parts[-2] == "full":
            self._answer(403)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parts[-2] == "slow":
            (path.parent / "begun").touch()
            time.sleep(60)
        path.write_bytes(content)
        self._answer(200)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, seconds: float = 30) -> None:
    """Until somebody listens on this port."""
    until = time.monotonic() + seconds
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert time.monotonic() < until, f"nobody listens on {port}"
        time.sleep(0.05)

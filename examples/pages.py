"""A small web server on this machine, slow on purpose: something to fetch where there is no internet."""

from __future__ import annotations

import hashlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

PAGE_BYTES = 20_000
"""A page of usual size."""


class _Server(ThreadingHTTPServer):
    """A thread for each connection, and room for all that come at once."""

    daemon_threads = True
    request_queue_size = 256
    delay_s = 0.0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        """Answer `/NUMBER` with that page, after the delay."""
        time.sleep(self.server.delay_s)
        body = page(int(self.path.removeprefix("/")))
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the demo's output belongs to the demo."""


def page(number: int) -> bytes:
    """What stands on page `number`."""
    line = f"This is page {number}. ".encode()
    return (line * (PAGE_BYTES // len(line) + 1))[:PAGE_BYTES]


class Pages:
    """The server, for the length of a `with`; each answer takes `delay_s`."""

    def __init__(self, delay_s: float) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.delay_s = delay_s
        self._thread = threading.Thread(target=self._server.serve_forever, name="pages", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def url(self, number: int) -> str:
        """Where page `number` is."""
        return f"http://127.0.0.1:{self._server.server_port}/{number}"

    @staticmethod
    def digest(number: int) -> str:
        """The SHA-256 of page `number`."""
        return hashlib.sha256(page(number)).hexdigest()

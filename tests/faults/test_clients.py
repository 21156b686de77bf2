"""Clients that leave, dawdle and flood: it costs them their connection, and the others nothing."""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.faults.test_workers import rss_kib
from tests.integration.daemon import Daemon, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.daemon import WheelEnv

LEAVERS = 1_000
AT_ONCE = 100
FREED_DEADLINE_S = 30.0
STORE_FILES = 10
"""The store opens files for its readers when it first needs them."""
LOG_LINES_MAX = 20
"""What a thousand clients that leave may make a daemon say."""
POURED_MB = 60
POURED_ITEM_BYTES = 60_000
GROWTH_MAX_KIB = 24 * 1024
"""A fraction of what is poured; the store's own caches and the heap's holes are in it."""
FLOOD_BYTES = 1_000_000_000
FLOOD_GROWTH_MAX_KIB = 8 * 1024
REPLY_S = 30.0
LINGER_RESET = struct.pack("ii", 1, 0)
TASKS = """
import threading
from collections.abc import Iterator
from jobsvc import Context, task

_never = threading.Event()

@task(executor="process")
def talk(ctx: Context) -> Iterator[int]:
    n = 0
    while not ctx.cancelled:
        yield (n := n + 1)
        _never.wait(0.01)

@task(executor="process")
def pour(count: int, size: int) -> Iterator[str]:
    for _ in range(count):
        yield "x" * size

@task
def echo(x: int = 0) -> int:
    return x
"""


@pytest.fixture(scope="module")
def daemon(wheel_env: WheelEnv, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all of them: it must outlive each."""
    with running(Daemon(wheel_env, tmp_path_factory.mktemp("clients")), TASKS) as started:
        yield started


def connect(daemon: Daemon, head: str, *, read_buffer: int = 0) -> socket.socket:
    """A connection on which a request has been sent, with the daemon's token."""
    connection = socket.socket()
    if read_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, read_buffer)
    connection.settimeout(REPLY_S)
    connection.connect(("127.0.0.1", urlsplit(daemon.url).port or 0))
    lines = [head, "Host: localhost", f"Authorization: Bearer {daemon.token}"]
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    return connection


def open_connections(daemon: Daemon) -> int:
    """As the daemon counts them."""
    for family in text_string_to_metric_families(daemon.get("/metrics").text):
        for sample in family.samples:
            if sample.name == "jobsvc_http_connections":
                return int(sample.value)
    pytest.fail("no figure of open connections")


def open_files(daemon: Daemon) -> int:
    return len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))


def test_a_thousand_clients_that_vanish_mid_stream(daemon: Daemon) -> None:
    """F54: their connections are freed, the job goes on, the log says little."""
    job = daemon.submit("talk")["id"]
    daemon.first_item(job)
    before, files, said = open_connections(daemon), open_files(daemon), daemon.log.count("\n")
    for _ in range(LEAVERS // AT_ONCE):
        with ExitStack() as leavers:
            readers = [
                leavers.enter_context(connect(daemon, f"GET /v1/jobs/{job}/events HTTP/1.1"))
                for _ in range(AT_ONCE)
            ]
            for reader in readers:
                assert reader.recv(12) == b"HTTP/1.1 200"
                reader.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
    daemon.wait_for(
        "the end of their connections",
        lambda: open_connections(daemon) <= before and open_files(daemon) <= files + STORE_FILES,
        FREED_DEADLINE_S,
    )
    assert daemon.job(job)["state"] == "running"
    assert daemon.log.count("\n") - said < LOG_LINES_MAX
    assert daemon.post(f"/v1/jobs/{job}/cancel", json={"mode": "now"}).status_code == 202
    assert daemon.done(job)["state"] == "cancelled"


def test_a_slow_reader_costs_bounded_memory(daemon: Daemon) -> None:
    """F55: sixty megabytes for one that takes a few bytes: the job ends, the daemon has not kept it for him."""
    daemon.succeeded(daemon.submit("pour", 50, POURED_ITEM_BYTES)["id"])  # what the daemon needs anyway
    before = rss_kib(daemon.pid)
    job = daemon.submit("pour", POURED_MB * 1_000_000 // POURED_ITEM_BYTES, POURED_ITEM_BYTES)["id"]
    with connect(daemon, f"GET /v1/jobs/{job}/streams/out HTTP/1.1", read_buffer=4096) as reader:
        assert reader.recv(12) == b"HTTP/1.1 200"
        assert daemon.done(job)["state"] == "succeeded"
        assert rss_kib(daemon.pid) - before < GROWTH_MAX_KIB


@pytest.mark.parametrize("framing", [f"Content-Length: {FLOOD_BYTES}", "Transfer-Encoding: chunked"])
def test_a_gigabyte_of_body_is_refused_early(daemon: Daemon, framing: str) -> None:
    """F59: 413 while most of it is still to come, with no more memory and no file for it."""
    before, files = rss_kib(daemon.pid), open_files(daemon)
    head = f"POST /v1/jobs HTTP/1.1\r\nContent-Type: application/json\r\n{framing}"
    sent = 0
    with connect(daemon, head) as sender:
        got = b""
        sender.setblocking(False)  # the reply may come at any moment
        if "chunked" in framing:
            sender.setblocking(True)
            sender.settimeout(REPLY_S)
            sender.sendall(b"%x\r\n" % FLOOD_BYTES)
            sender.setblocking(False)
        while b"\r\n\r\n" not in got:
            try:
                sent += sender.send(bytes(65536))
            except BlockingIOError:
                pass
            except (BrokenPipeError, ConnectionResetError):
                pytest.fail(f"the connection broke after {sent} bytes, and no reply came")
            try:
                got += sender.recv(65536)
            except BlockingIOError:
                continue
        assert got.startswith(b"HTTP/1.1 413")
        assert sent < FLOOD_BYTES / 10
        assert rss_kib(daemon.pid) - before < FLOOD_GROWTH_MAX_KIB
        held = [entry.readlink() for entry in Path(f"/proc/{daemon.pid}/fd").iterdir()]
        assert not [name for name in held if name.parent == Path(gettempdir())]
        assert len(held) <= files + 2
    assert daemon.succeeded(daemon.submit("echo", 1)["id"]) == 1

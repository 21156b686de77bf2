"""The load generator against a small server: it sends what it was told, counts what came back, tells what is wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bench.load import LoadFailed, Plan, request, run


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = 200 if self.path == "/echo" else 404
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def post(target: str, body: bytes) -> bytes:
    return request("POST", target, {"Host": "x"}, body)


def test_a_count_of_requests_is_sent_in_turn_over_all_connections(port: int) -> None:
    requests = [post("/echo", b"one "), post("/echo", b"three " * 100_000)]
    plan = Plan(host="127.0.0.1", port=port, requests=requests, connections=3, count=10, marker=b"three")
    outcome = run(plan)
    assert (outcome.replies, outcome.wrong, len(outcome.latencies_s)) == (10, 0, 10)
    assert outcome.marks == 5 * 100_000
    assert outcome.body_bytes == 5 * 4 + 5 * 600_000
    assert 0 < max(outcome.latencies_s) <= outcome.elapsed_s


def test_a_warm_up_is_not_counted(port: int) -> None:
    plan = Plan(host="127.0.0.1", port=port, requests=[post("/echo", b"x")], count=2, warm_up=3, marker=b"x")
    outcome = run(plan)
    assert (outcome.replies, outcome.marks, outcome.body_bytes) == (2, 2, 2)


def test_a_run_by_time_ends_with_the_replies_to_what_was_sent(port: int) -> None:
    plan = Plan(host="127.0.0.1", port=port, requests=[post("/echo", b"x")], connections=2, seconds=0.05)
    outcome = run(plan)
    assert outcome.replies >= 2
    assert outcome.elapsed_s >= 0.05


def test_requests_may_be_paced(port: int) -> None:
    plan = Plan(host="127.0.0.1", port=port, requests=[post("/echo", b"x")], count=3, pause_s=0.01)
    outcome = run(plan)
    assert outcome.replies == 3
    assert outcome.elapsed_s >= 0.03


def test_the_gate_is_opened_once_requests_are_sent(port: int, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run(Plan(host="127.0.0.1", port=port, requests=[post("/echo", b"x")], count=1, gate=str(gate)))
    assert gate.exists()


def test_another_status_fails_the_run_and_is_shown(port: int) -> None:
    plan = Plan(host="127.0.0.1", port=port, requests=[post("/nowhere", b"what it says")], count=2)
    with pytest.raises(LoadFailed, match="2 of 2 replies are wrong: 404 what it says"):
        run(plan)


def test_a_reply_without_its_marks_fails_the_run_and_is_shown(port: int) -> None:
    plan = Plan(
        host="127.0.0.1",
        port=port,
        requests=[post("/echo", b"xx"), post("/echo", b"xyx"), post("/echo", b"no")],
    )
    plan.count, plan.marker, plan.marks = 3, b"x", 2
    with pytest.raises(LoadFailed, match="1 of 3 replies are wrong: 200 no"):
        run(plan)


def test_a_server_that_is_not_there_fails_the_run() -> None:
    with pytest.raises(LoadFailed, match="refused"):
        run(Plan(host="127.0.0.1", port=1, requests=[post("/", b"")], count=1))

"""`jobsvc doctor`: a running daemon, well and not; and the command as a whole."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from jobsvc.cli.checks import access, running, table
from jobsvc.cli.checks.scene import Answer, Scene
from jobsvc.cli.root import run
from jobsvc.cli.shell import Shell
from jobsvc.client.discovery import Target
from jobsvc.store.folder import DataFolder
from tests.cli.doctor_scene import House, told


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


# -- the running daemon ----------------------------------------------------------------------------------------------


class Page(BaseHTTPRequestHandler):
    """Answers as it was told to, by method and path, or by a header that it watches for."""

    answers: ClassVar[dict[str, tuple[int, dict[str, str], Any]]] = {}
    seen: ClassVar[list[dict[str, str]]] = []

    def do_GET(self) -> None:
        Page.seen.append({name.lower(): value for name, value in self.headers.items()})
        key = f"{self.command} {self.path}"
        if self.headers["Host"] == "doctor.invalid":
            key += " host"
        if self.headers["Authorization"]:
            key += " token"
        status, headers, value = Page.answers.get(key, (404, {}, None))
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in (*headers.items(), ("Content-Length", str(len(body)))):
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - the name that http.server calls

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


WELL: dict[str, tuple[int, dict[str, str], Any]] = {
    "GET /livez": (200, {}, "ok"),
    "GET /livez host": (421, {}, None),
    "GET /v1/info": (401, {}, None),
    "GET /v1/info token": (200, {}, {"version": "1.2"}),
    "POST /v1/jobs": (403, {}, None),
    "GET /readyz?verbose=1 token": (
        200,
        {},
        {"ready": True, "checks": [{"check": "a", "ok": True, "detail": ""}]},
    ),
}


@contextmanager
def answering(scene: Scene, **changed: Any) -> Iterator[None]:
    """The daemon of the scene answers well, but for what is changed."""
    Page.answers, Page.seen = WELL | changed, []
    server = HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    scene.target = Target(f"http://127.0.0.1:{server.server_port}", None, "jobsvc_1.x")
    scene.installed = lambda name: "1.2"
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_daemon_that_is_well(house: House) -> None:
    """The token goes along only where it is needed, and never to prove that one is asked for."""
    scene = house.with_daemon()
    with answering(scene):
        for look in (access.asks_for_token, access.host_names, access.other_sites):
            told(look(scene), "pass", "refused")
        assert not any("authorization" in seen for seen in Page.seen)
        told(running.reachable(scene), "pass", "http://127.0.0.1:")
        told(running.same_version(scene), "pass", "1.2")
        told(running.ready(scene), "pass", "1 checks")
        assert Page.seen[-1]["authorization"] == "Bearer jobsvc_1.x"


def test_a_daemon_with_open_doors(house: House) -> None:
    scene = house.with_daemon()
    doors: dict[str, Any] = {
        "GET /v1/info": (200, {}, {}),
        "GET /livez host": (200, {}, None),
        "POST /v1/jobs": (401, {}, None),
    }
    with answering(scene, **doors):
        told(access.asks_for_token(scene), "fail", "answered 200, not 401")
        told(access.host_names(scene), "fail", "answered 200, not 421")
        told(access.other_sites(scene), "fail", "answered 401, not 403")
    shared = {"GET /livez": (200, {"Access-Control-Allow-Origin": "*"}, "ok")}
    with answering(scene, **shared):
        told(access.other_sites(scene), "fail", "CORS")


def test_a_daemon_that_is_not_well(house: House) -> None:
    scene = house.with_daemon()
    rows = [{"check": "disk", "ok": False, "detail": "full"}, {"check": "b", "ok": True, "detail": ""}]
    changed: dict[str, Any] = {
        "GET /livez": (500, {}, None),
        "GET /v1/info token": (200, {}, {"version": "1.1"}),
        "GET /readyz?verbose=1 token": (503, {}, {"ready": False, "checks": rows}),
    }
    with answering(scene, **changed):
        told(running.reachable(scene), "fail", "500")
        told(running.same_version(scene), "warn", "1.1", "1.2", "restart")
        told(running.ready(scene), "fail", "disk: full")
    changed["GET /readyz?verbose=1 token"] = (200, {}, {"ready": True, "checks": rows})
    changed["GET /v1/info token"] = (401, {}, {})
    with answering(scene, **changed):
        told(running.ready(scene), "warn", "disk: full")
        told(running.same_version(scene), "fail", "401", "JOBSVC_TOKEN")
    changed["GET /v1/info token"] = (200, {}, [1])
    with answering(scene, **changed):
        told(running.same_version(scene), "fail", "something else")
    changed["GET /readyz?verbose=1 token"] = (200, {}, {"ready": True, "checks": [1]})
    with answering(scene, **changed):
        told(running.ready(scene), "fail", "something else")


def test_a_daemon_that_is_silent(house: House) -> None:
    """Gone, deaf, or no HTTP at all."""
    told(running.reachable(house.scene()), "n/a")
    house.private("endpoint.json")
    told(running.reachable(house.scene()), "warn", "did not stop cleanly")
    scene = house.with_daemon()
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        scene.target = Target(f"http://127.0.0.1:{deaf.getsockname()[1]}", None, None)
        told(running.reachable(scene), "fail", "does not answer")
        told(running.ready(scene), "fail", "no answer")
    scene.target = "no daemon found: there is no endpoint.json"
    told(running.reachable(scene), "fail", "no daemon found")
    told(running.ready(scene), "n/a")
    told(access.host_names(scene), "n/a")


def test_what_speaks_no_http(house: House) -> None:
    scene = house.with_daemon()
    with socket.socket(socket.AF_UNIX) as listening:
        path = str(house.root / "s")
        listening.bind(path)
        listening.listen()

        def answer() -> None:
            caller, _ = listening.accept()
            with caller:
                caller.recv(1000)
                caller.sendall(b"220 mail.example ESMTP\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        scene.target = Target("http://localhost", path, None)
        told(running.reachable(scene), "fail", "no HTTP comes from there")
        thread.join()


# -- all of it -------------------------------------------------------------------------------------------------------


def test_a_check_that_cannot_look_keeps_no_other_from_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = house.with_daemon()

    def silent(*_: Any, **__: Any) -> Answer:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(scene, "ask", silent)
    found = dict(table.examine(scene))
    assert list(found) == [name for name, _ in table.CHECKS]
    assert len(found) == len(table.CHECKS)
    told(found["host-names"], "fail", "Connection refused")
    told(found["ready"], "fail", "no answer")
    told(found["lock"], "pass")


def command(capsys: pytest.CaptureFixture[str], *words: str, terminal: bool = False) -> tuple[int, str]:
    def no_daemon() -> Any:
        raise AssertionError("the client is not needed")

    code = run(["doctor", *words], Shell(no_daemon, terminal=terminal))
    out, err = capsys.readouterr()
    assert err == ""
    return code, out


OF_THE_FOLDER = (
    "settings",
    "config-file",
    "listeners",
    "data-dir",
    "token-file",
    "data-files",
    "lock",
    "daemon",
)


def test_the_command(
    house: House, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line for each check, in both forms; exit 1 exactly when something fails."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(house.root))
    folder = DataFolder(house.data, "boot", os.urandom)
    folder.take()
    folder.token()
    folder.release()
    words = ("--data-dir", str(house.data))
    # What this very machine and user are like is not the matter here.
    monkeypatch.setattr(table, "CHECKS", tuple(row for row in table.CHECKS if row[0] in OF_THE_FOLDER))
    code, out = command(capsys, *words)
    rows = {row["check"]: row for row in map(json.loads, out.splitlines())}
    assert list(rows) == [name for name, _ in table.CHECKS]
    assert [name for name, row in rows.items() if row["status"] == "fail"] == []
    assert code == 0
    assert rows["token-file"]["status"] == "pass"
    assert all(set(row) == {"check", "status", "detail", "advice"} for row in rows.values())
    (house.data / "token").chmod(0o644)
    code, out = command(capsys, *words, "--threads", "0")
    assert code == 1
    failed = [row["check"] for row in map(json.loads, out.splitlines()) if row["status"] == "fail"]
    assert failed == ["settings", "token-file"]
    code, out = command(capsys, *words, terminal=True)
    assert code == 1
    lines = out.splitlines()
    assert next(line for line in lines if line.startswith("FAIL")).split()[1] == "token-file"
    assert "1 FAIL" in lines[-1]

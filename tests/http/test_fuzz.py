"""P21, P26: whatever stands in bodies, queries and headers, it is served or refused in words, and so is the next."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_from_bytes

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobsvc.http.problems import PROBLEM_TYPES
from jobsvc.http.routes import ROUTES

if TYPE_CHECKING:
    from tests.http.house import House
    from tests.http.wire import Reply

# One house serves all examples, as one daemon does.
same_house = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
REFUSALS = {kind.status for kind in PROBLEM_TYPES.values()} - {500}
LISTED = next(route for route in ROUTES if route.name == "jobs.list")

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
fields = st.sampled_from(
    ["task", "args", "key", "queue", "priority", "run_at", "delay_s", "expires_at", "timeouts", "retries", "backoff",
     "on_lost", "labels", "more"]
)  # fmt: skip
bodies = st.dictionaries(fields, values, max_size=6).map(lambda body: {"task": "echo", **body})


def refused_or_served(house: House, reply: Reply) -> None:
    """No reply but one that the table knows; and the daemon goes on."""
    assert reply.status in {200, 201, 202, 204, 304} | REFUSALS, reply
    if reply.status >= 400:
        problem = reply.json()
        assert problem["status"] == reply.status
        assert problem["code"] in PROBLEM_TYPES
        assert problem["detail"]
    assert house.ask("GET", "/livez").status == 200


def encoded(value: Any) -> bytes:
    """JSON as a careless client writes it: with NaN, Infinity and lone surrogates."""
    import json

    return json.dumps(value).encode()


@same_house
@given(
    body=bodies.map(encoded)
    | st.binary(max_size=60)
    | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
def test_bodies(house: House, body: bytes) -> None:
    refused_or_served(house, house.ask("POST", "/v1/jobs", raw=body or b"{}"))


@same_house
@given(body=bodies.map(encoded), cut=st.integers(0, 400), more=st.binary(max_size=8))
def test_bodies_that_are_cut_or_go_on(house: House, body: bytes, cut: int, more: bytes) -> None:
    refused_or_served(house, house.ask("POST", "/v1/jobs", raw=body[:cut] + more or b"{"))


@same_house
@given(
    pairs=st.lists(
        st.tuples(st.sampled_from([*LISTED.query, "label.x", "more"]), st.binary(max_size=20)), max_size=3
    )
)
def test_queries(house: House, pairs: list[tuple[str, bytes]]) -> None:
    query = "&".join(f"{quote(name)}={quote_from_bytes(value)}" for name, value in pairs)
    refused_or_served(house, house.ask("GET", f"/v1/jobs?{query}"))


@same_house
@given(cursor=st.text(string.ascii_letters + string.digits + "-_=", max_size=30))
def test_cursors(house: House, cursor: str) -> None:
    refused_or_served(house, house.ask("GET", f"/v1/jobs?cursor={cursor}"))


@same_house
@given(
    name=st.sampled_from(
        ["Authorization", "Accept", "Prefer", "Idempotency-Key", "If-Match", "If-None-Match", "X-Request-ID",
         "traceparent", "Content-Type", "Content-Encoding", "Origin", "Sec-Fetch-Site", "Host"]
    ),
    value=st.text(string.printable.strip() + " ", min_size=1, max_size=30).map(str.strip),
)  # fmt: skip
def test_headers(house: House, name: str, value: str) -> None:
    refused_or_served(house, house.ask("POST", "/v1/jobs", {"task": "echo"}, {name: value}))


def test_many_keys_that_hash_alike_and_deep_nesting_cost_little(house: House) -> None:
    """P21: integers that collide as numbers are texts here, and texts are hashed with a secret of the process."""
    many = {str(n * (2**61 - 1)): n for n in range(20_000)}
    raw = msgspec.json.encode({"task": "echo", "args": {"x": many}})
    assert house.ask("POST", "/v1/jobs", raw=raw).status in {201, 413}
    deep = b'{"task":"echo","args":{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}}"
    assert house.ask("POST", "/v1/jobs", raw=deep).status == 400

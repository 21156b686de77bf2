"""Idempotency keys at the door: which are taken, what a replay says, and a hundred at once. B47, F61."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import pytest_twisted
from twisted.internet import protocol
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

from jobsvc.model.clock import time_text
from jobsvc.store.threaded import ThreadedStore
from tests.http.house import House
from tests.http.wire import TOKEN, Reply

LIMIT_S = 30.0
"""No answer after this: the test has failed."""


def send(house: House, key: str | None, args: Any = None, body_key: str | None = None) -> Reply:
    value = {"task": "echo", "args": args or {}} | ({} if body_key is None else {"key": body_key})
    return house.ask("POST", "/v1/jobs", value, {} if key is None else {"Idempotency-Key": key})


def test_a_quoted_key_is_the_text_within(house: House) -> None:
    """As the draft has it, and bare as everybody sends it: the same key. So is the body's."""
    job = send(house, "k-1").json()
    assert send(house, '"k-1"').json()["id"] == job["id"]
    assert send(house, ' "k-1" ').json()["id"] == job["id"]
    assert send(house, '"k-1";v=1').json()["id"] == job["id"]
    assert send(house, None, body_key="k-1").json()["id"] == job["id"]
    assert send(house, '"k-1"', body_key="k-1").status == 200
    other = send(house, r'"a \"b\" \\ c"').json()
    assert send(house, None, body_key=r'a "b" \ c').json()["id"] == other["id"] != job["id"]


def test_keys_that_are_none(house: House) -> None:
    """B47: empty, broken, with control characters: 400; too long: 422; two of them: 400. Nothing is stored."""
    for key in ('""', '"', '"abc', '"a"b"', '"a\\b"', '"a" "b"', "a\tb", "a\x7fb", "\xff", '"ü"'):
        reply = send(house, key)
        # Control characters are no part of any header: such a request is not read further.
        code = "bad_request" if "\x7f" in key else "bad_query"
        assert (reply.status, reply.json()["code"]) == (400, code), key
        assert code == "bad_request" or "Idempotency-Key" in reply.json()["detail"]
    two = send(house, "one\r\nIdempotency-Key: two")
    assert (two.status, two.json()["code"]) == (400, "bad_query")
    empty = house.wire()
    empty.request("POST", "/v1/jobs", b'{"task":"echo"}', {"X": "y\r\nIdempotency-Key:"})
    assert empty.reply().status == 400
    for key in ("k" * 256, '"' + "k" * 256 + '"'):
        assert (send(house, key).status, send(house, key).json()["code"]) == (422, "invalid_field")
    for body_key in ("", "k" * 256, 5, None):
        reply = house.ask("POST", "/v1/jobs", {"task": "echo", "key": body_key})
        assert (reply.status, reply.json()["errors"][0]["pointer"]) == (422, "/key")
    assert house.ask("GET", "/v1/jobs").json()["jobs"] == []
    assert send(house, "k" * 255).status == 201


def test_another_body_is_422(house: House) -> None:
    """B47: and of an upload that line alone."""
    job = send(house, "k").json()
    reused = send(house, "k", {"x": 1})
    assert (reused.status, reused.json()["code"]) == (422, "key_reused")
    lines = b'{"task":"echo","key":"k"}\n{"task":"echo","args":{"x":2},"key":"k"}\n{"task":"echo"}'
    out = house.ask(
        "POST", "/v1/jobs/bulk", raw=lines, headers={"Content-Type": "application/x-ndjson"}
    ).lines()
    assert out[0]["problem"]["code"] == "key_reused"  # no args and empty ones are not the same body
    assert out[1]["problem"]["code"] == "key_reused"
    assert "id" in out[2]
    assert send(house, "k").json()["id"] == job["id"]


@pytest.mark.parametrize("moment", ["expires_at", "delay_s"])
def test_a_replay_that_comes_after_the_end_of_its_job(house: House, moment: str) -> None:
    """B47: its first try was in time. What nobody knows of is refused, and is not stored."""
    soon = time_text(house.now_us() + 10_000_000)
    body = {"task": "echo", "expires_at": soon} | ({"delay_s": 5} if moment == "delay_s" else {})
    line, other = (msgspec.json.encode({**body, "key": key}) for key in ("k", "other"))
    typed = {"Content-Type": "application/x-ndjson"}
    job = house.ask("POST", "/v1/jobs", body, {"Idempotency-Key": "k"}).json()
    house.after(6 if moment == "delay_s" else 11)

    again = house.ask("POST", "/v1/jobs", body, {"Idempotency-Key": "k"})
    assert (again.status, again.json()["id"]) == (200, job["id"])
    for query in ("", "?atomic=1"):
        out = house.ask("POST", f"/v1/jobs/bulk{query}", raw=line + b"\n" + line, headers=typed).lines()
        assert [answer["id"] for answer in out] == [job["id"]] * 2
    out = house.ask("POST", "/v1/jobs/bulk", raw=line + b"\n" + other, headers=typed).lines()
    assert (out[0]["id"], out[1]["problem"]["errors"][0]["pointer"]) == (job["id"], "/expires_at")
    whole = house.ask("POST", "/v1/jobs/bulk?atomic=1", raw=line + b"\n" + other, headers=typed)
    assert (whole.status, whole.json()["errors"][0]["pointer"]) == (422, "/2/expires_at")
    late = house.ask("POST", "/v1/jobs", body, {"Idempotency-Key": "other"})
    assert (late.status, late.json()["errors"][0]["pointer"]) == (422, "/expires_at")
    assert house.ask("POST", "/v1/jobs", body).status == 422
    reused = house.ask("POST", "/v1/jobs", {**body, "priority": 1}, {"Idempotency-Key": "k"})
    assert reused.json()["code"] == "key_reused"
    assert [row["id"] for row in house.ask("GET", "/v1/jobs").json()["jobs"]] == [job["id"]]


def test_an_upload_has_no_key(house: House) -> None:
    """A header that would be passed over is refused: each line has its own."""
    reply = house.ask(
        "POST", "/v1/jobs/bulk", raw=b'{"task":"echo"}',
        headers={"Idempotency-Key": "k", "Content-Type": "application/x-ndjson"},
    )  # fmt: skip
    assert (reply.status, reply.json()["code"]) == (400, "bad_query")
    assert "every line" in reply.json()["detail"]


def test_when_a_key_may_be_used_anew(house: House) -> None:
    """Known once the job has ended: `keep_s` after that. /v1/info says it in words."""
    first = send(house, "k")
    assert "idempotency-key-expires" not in first.headers
    assert "idempotency-key-expires" not in send(house, "k").headers
    house.worker.succeed(house.worker.started[0], b"1")
    replay = send(house, "k")
    assert (replay.status, replay.headers["idempotency-replayed"]) == (200, "true")
    # Seven days after the end, in the form of Expires.
    assert replay.headers["idempotency-key-expires"] == "Wed, 25 Nov 2026 11:06:40 GMT"
    waited = house.start("POST", "/v1/jobs", {"task": "echo", "key": "w"}, {"Prefer": "wait=9"})
    house.worker.succeed(house.worker.started[1], b"1")
    assert "idempotency-key-expires" in waited.reply().headers
    called = house.start("POST", "/v1/tasks/echo/call", {}, {"Idempotency-Key": "c"})
    house.worker.succeed(house.worker.started[2], b"1")
    assert "idempotency-key-expires" in called.reply().headers
    assert "idempotency-key-expires" not in house.ask("GET", f"/v1/jobs/{first.json()['id']}").headers
    assert "keep_s" in house.ask("GET", "/v1/info").json()["defaults"]["key_lifetime"]


# -- F61: real sockets, a real store


class Once(protocol.Protocol):
    """Sends one request and keeps the reply."""

    def __init__(self) -> None:
        self.got = b""
        self.done: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.got += data

    def connectionLost(self, reason: Any = protocol.connectionDone) -> None:
        self.done.callback(self.got)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "jobsvc.db")


async def on_disk(path: str) -> AsyncIterator[tuple[House, Any]]:
    """A house whose store is a file with a thread, and its port."""
    from twisted.internet import reactor

    store = ThreadedStore(path, "power", cast("Any", reactor), lambda _: None)
    await store.open()
    house = House(store=store)
    await house.begun
    port = cast("Any", reactor).listenTCP(0, house.site, interface="127.0.0.1")
    try:
        yield house, port
    finally:
        await port.stopListening()
        house.close()
        await store.close()


async def at_once(port: Any, bodies: list[Any], key: str) -> list[tuple[int, Any, bytes]]:
    """All requests are sent before any is answered; status, body and head of each."""
    from twisted.internet import reactor

    talkers = [Once() for _ in bodies]
    where = TCP4ClientEndpoint(cast("Any", reactor), "127.0.0.1", port.getHost().port)
    for talker in talkers:
        await connectProtocol(where, talker)
    for talker, value in zip(talkers, bodies, strict=True):
        body = msgspec.json.encode(value)
        head = (
            f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"Idempotency-Key: {key}\r\nConnection: close\r\n\r\n"
        )
        assert talker.transport is not None
        talker.transport.write(head.encode() + body)
    replies = await gatherResults([talker.done for talker in talkers]).addTimeout(
        LIMIT_S, cast("Any", reactor)
    )
    out = []
    for reply in replies:
        head_bytes, _, body = reply.partition(b"\r\n\r\n")
        out.append((int(head_bytes.split()[1]), msgspec.json.decode(body), head_bytes.lower()))
    return out


@pytest_twisted.ensureDeferred
async def test_a_hundred_submits_with_one_key(path: str) -> None:
    """F61: one job; one 201, the others wait for its commit and get the same job. With other bodies: 422."""
    async for house, port in on_disk(path):
        same = await at_once(port, [{"task": "idle"}] * 100, "one")
        assert sorted(status for status, _, _ in same) == [200] * 99 + [201]
        assert len({job["id"] for _, job, _ in same}) == 1
        assert sum(b"idempotency-replayed: true" in head for _, _, head in same) == 99
        other = await at_once(port, [{"task": "echo", "args": {"x": n}} for n in range(100)], "two")
        assert sorted(status for status, _, _ in other) == [201] + [422] * 99
        assert {body["code"] for status, body, _ in other if status == 422} == {"key_reused"}
        again = await at_once(port, [{"task": "idle", "priority": n % 2} for n in range(100)], "one")
        assert sorted({status for status, _, _ in again}) == [422]
        assert dict(await house.store.depths()) == {"default": 1}
        assert house.engine.quotas.waiting == {"default": 1}

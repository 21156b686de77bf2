"""Bulk submits: a thousand jobs in one request, answered line by line, in order."""

from __future__ import annotations

import json
import socket
from typing import IO, TYPE_CHECKING, Any, cast

import pytest

from tests.integration.daemon import Daemon, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.daemon import WheelEnv

TASKS = """
from jobsvc import task

@task(executor="process")
def add(a: int, b: int = 1) -> int:
    return a + b

@task
def divide(a: int, b: int) -> float:
    return a / b

@task
async def echo(value: str) -> str:
    return value
"""


@pytest.fixture(scope="module")
def daemon(wheel_env: WheelEnv, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all."""
    with running(Daemon(wheel_env, tmp_path_factory.mktemp("bulk")), TASKS) as started:
        yield started


def body(*lines: Any) -> bytes:
    """Lines of a bulk upload; bytes are taken as they are."""
    return b"".join(
        (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines
    )


def bulk(daemon: Daemon, content: bytes, **params: Any) -> list[dict[str, Any]]:
    """All lines of the reply."""
    return list(daemon.lines("/v1/jobs/bulk", method="POST", content=content, params=params))


def test_a_thousand_jobs_and_their_outcomes(daemon: Daemon) -> None:
    """One id a line, in order; then one outcome for each job, each with its result."""
    lines = [
        {"task": "divide", "args": [n, n % 10]} if n % 3 == 0 else {"task": "add", "args": {"a": n}} if n % 3 == 1
        else {"task": "echo", "args": [f"ü{n}"]}
        for n in range(1000)
    ]  # fmt: skip
    replies = bulk(daemon, body(*lines), follow="out")
    accepted, outcomes = replies[:1000], replies[1000:]
    assert [line["line"] for line in accepted] == list(range(1, 1001))
    assert len({line["id"] for line in accepted}) == 1000
    assert sorted(line["line"] for line in outcomes) == list(range(1, 1001))
    ids = {line["line"]: line["id"] for line in accepted}
    for line in outcomes:
        n = line["line"] - 1
        assert line["id"] == ids[n + 1]
        if n % 3 == 0 and n % 10 == 0:
            assert (line["state"], line["result"], line["error"]["type"]) == (
                "failed",
                None,
                "ZeroDivisionError",
            )
        else:
            wanted = n / (n % 10) if n % 3 == 0 else n + 1 if n % 3 == 1 else f"ü{n}"
            assert (line["state"], line["result"], line["error"]) == ("succeeded", wanted, None)


def test_ids_come_in_the_order_of_submission(daemon: Daemon) -> None:
    """UUIDv7: sorting ids sorts jobs."""
    ids = [line["id"] for line in bulk(daemon, body(*[{"task": "add", "args": [1]}] * 200))]
    assert ids == sorted(ids)


def test_bad_lines_are_refused_alone(daemon: Daemon) -> None:
    """Blank lines are counted and skipped; each bad line has a problem in its place, with the pointer."""
    replies = bulk(
        daemon,
        body({"task": "add", "args": [1]}, b"", {"task": "add", "args": {"a": "one"}}, b"{not json", {"task": "nope"},
             {"task": "add", "args": [1], "colour": "red"}, b"   ", {"task": "add", "args": [2], "priority": 101},
             {"task": "add", "args": [2]}),
        follow="out",
    )  # fmt: skip
    problems = {line["line"]: line["problem"] for line in replies if "problem" in line}
    assert {line: (problem["code"], problem["status"]) for line, problem in problems.items()} == {
        3: ("invalid_args", 422), 4: ("bad_json", 400), 5: ("no_such_task", 422), 6: ("invalid_field", 422),
        8: ("invalid_field", 422),
    }  # fmt: skip
    assert [error["pointer"] for error in problems[3]["errors"]] == ["/args/a"]
    assert [error["pointer"] for error in problems[8]["errors"]] == ["/priority"]
    assert [line["line"] for line in replies[:7]] == [1, 3, 4, 5, 6, 8, 9]
    assert {line["line"]: line["result"] for line in replies[7:]} == {1: 2, 9: 3}


def test_last_line_needs_no_newline(daemon: Daemon) -> None:
    """And an empty upload is none."""
    (reply,) = bulk(daemon, b'{"task": "add", "args": [1]}')
    assert daemon.succeeded(reply["id"]) == 2
    assert bulk(daemon, b"") == []


def test_all_or_nothing(daemon: Daemon) -> None:
    """atomic=1: one bad line refuses all, and says which; good ones are stored together."""
    label = {"labels": {"upload": "atomic"}}
    good = [{"task": "add", "args": [n], **label} for n in range(50)]
    refused = daemon.post("/v1/jobs/bulk?atomic=1", content=body(*good, {"task": "add", "args": ["x"]}))
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_args")
    assert refused.json()["errors"][0]["pointer"] == "/51/args/0"
    assert daemon.get("/v1/jobs", params={"label.upload": "atomic"}).json()["jobs"] == []
    replies = bulk(daemon, body(*good), atomic=1, follow="out")
    assert len(replies) == 100
    assert {line["state"] for line in replies[50:]} == {"succeeded"}


def chunk(data: bytes) -> bytes:
    """One piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def test_reply_while_the_upload_goes_on(daemon: Daemon) -> None:
    """live=1: the first id is answered before the last line has been sent. Ordinary clients send all before they
    read, so this is a plain socket.
    """  # fmt: skip
    host, _, port = daemon.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as sock, sock.makefile("rb") as reply:
        sock.sendall(
            b"POST /v1/jobs/bulk?live=1 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
            + f"Authorization: Bearer {daemon.token}\r\n\r\n".encode()
            + chunk(body({"task": "add", "args": [1]}))
        )
        first = read_json(reply)
        assert first["line"] == 1
        assert daemon.succeeded(first["id"]) == 2
        sock.sendall(chunk(body({"task": "add", "args": [2]})) + chunk(b""))
        second = read_json(reply)
        assert second["line"] == 2
        assert daemon.succeeded(second["id"]) == 3


def read_json(reply: IO[bytes]) -> dict[str, Any]:
    """The next line that holds an object; the head and the sizes of pieces are passed over."""
    for line in reply:
        if line.startswith(b"{"):
            return cast("dict[str, Any]", json.loads(line))
    pytest.fail("the reply has ended")


def test_same_keys_again_give_the_same_jobs(daemon: Daemon) -> None:
    """A client that lost the reply sends the upload again: same ids; another body under a key is refused alone."""
    lines = [{"task": "add", "args": [n], "key": f"again-{n}"} for n in range(100)]
    first = bulk(daemon, body(*lines), follow="out")
    lines[7]["args"] = [1000]
    second = bulk(daemon, body(*lines), follow="out")
    ids = [line.get("id") for line in second[:100]]
    assert ids[:7] + ids[8:] == [line["id"] for line in first[:100] if line["line"] != 8]
    assert second[7]["problem"]["code"] == "key_reused"
    assert {line["line"]: line["result"] for line in second[100:]} == {
        n + 1: n + 1 for n in range(100) if n != 7
    }

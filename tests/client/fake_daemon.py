"""A daemon's wire in memory, the same for both faces: jobs are done at once, and every request is recorded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import msgspec
from twisted.web.resource import Resource
from twisted.web.server import Request as TwistedRequest

TOKEN = "jobsvc_1.secret"
URL = "http://jobs.example:8787"


class Asked(msgspec.Struct):
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


class Answer(msgspec.Struct):
    """One response; the body comes in these pieces."""

    status: int
    body: list[bytes]
    kind: str = "application/json"


def job_id(number: int) -> str:
    return f"01938f00-0000-7000-8000-{number:012d}"


def job(number: int, task: str, args: Any) -> dict[str, Any]:
    """A finished job: `add` adds, `boom` fails, everything else waits in its queue."""
    fields: dict[str, Any] = {"id": job_id(number), "task": task, "args": args, "result": None, "error": None}
    fields |= {"created_at": "2026-11-23T12:00:00.000001Z", "queue": "default", "priority": 0, "labels": {}}
    if task == "add":
        fields |= {
            "state": "succeeded",
            "result": sum(args.values() if isinstance(args, dict) else args or []),
        }
    elif task == "boom":
        error = {
            "kind": "task_error",
            "type": "ValueError",
            "message": "boom",
            "traceback": "Traceback: far away\n",
        }
        fields |= {"state": "failed", "error": error}
    else:
        fields |= {"state": "queued"}
    return {**fields, "done": fields["state"] != "queued", "revision": 1}


def refusal(status: int, code: str, detail: str) -> Answer:
    body = {
        "type": "about:blank",
        "title": code,
        "status": status,
        "detail": detail,
        "code": code,
        "retry_safe": False,
    }
    return Answer(status, [msgspec.json.encode(body)], "application/problem+json")


def lines(values: Iterable[Any]) -> bytes:
    return b"".join(msgspec.json.encode(value) + b"\n" for value in values)


class FakeDaemon:
    """Answers as the wire says. `answers` (path → answers) come first, in turn."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.jobs: list[dict[str, Any]] = []
        self.answers: dict[str, list[Answer]] = {}

    def answer(self, asked: Asked) -> Answer:  # noqa: PLR0911 - one return a route
        self.asked.append(asked)
        if asked.headers.get("authorization") != f"Bearer {TOKEN}":
            return refusal(401, "unauthenticated", "A token is needed.")
        if self.answers.get(asked.path):
            return self.answers[asked.path].pop(0)
        match [asked.method, *asked.path.strip("/").split("/")[1:]]:
            case ["POST", "jobs"]:
                return Answer(201, [msgspec.json.encode(self._made(msgspec.json.decode(asked.body)))])
            case ["POST", "jobs", "bulk"]:
                return Answer(200, self._bulk(asked), "application/x-ndjson")
            case ["GET", "jobs"]:
                rows = [row for row in self.jobs if row["state"] in asked.query.get("state", row["state"])]
                return Answer(200, [msgspec.json.encode({"jobs": rows[::-1], "next": None})])
            case ["GET", "tasks"]:
                schema = {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a"]}
                task = {
                    "name": "add",
                    "executor": "process",
                    "doc": "Add numbers.\nAny.",
                    "args_schema": schema,
                }
                return Answer(200, [msgspec.json.encode({"tasks": [task]})])
            case ["GET", "info"]:
                return Answer(200, [b'{"version":"1","limits":{"lines":3}}'])
            case ["POST", "reload"]:
                return Answer(200, [b'{"tasks":["add"]}'])
            case [method, "jobs", text, *rest]:
                return self._of_job(asked, method, text, rest)
        return refusal(404, "not_found", f"nothing at {asked.path}")

    def _made(self, body: dict[str, Any]) -> dict[str, Any]:
        self.jobs.append(job(len(self.jobs) + 1, body["task"], body.get("args")))
        return self.jobs[-1]

    def _bulk(self, asked: Asked) -> list[bytes]:
        made = [
            (number, self._made(msgspec.json.decode(line)))
            for number, line in enumerate(asked.body.splitlines(), 1)
        ]
        first = lines({"line": number, "id": row["id"]} for number, row in made)
        if "follow" not in asked.query:
            return [first]
        ends = [
            {"line": n, **{name: row[name] for name in ("id", "state", "result", "error")}} for n, row in made
        ]
        return [first[:50], first[50:] + b"\n", lines(reversed(ends))]

    def _of_job(self, asked: Asked, method: str, text: str, rest: list[str]) -> Answer:  # noqa: PLR0911
        found = next((row for row in self.jobs if row["id"] == text), None)
        if found is None:
            return refusal(404, "not_found", f"There is no job {text}.")
        body = msgspec.json.encode(found)
        match [method, *rest]:
            case ["GET"] | ["POST", "cancel"]:
                return Answer(200, [body])
            case ["POST", "retry"]:
                return Answer(201, [msgspec.json.encode(self._made(found))])
            case ["GET", "result"] if found["state"] == "succeeded":
                return Answer(200, [msgspec.json.encode(found["result"])])
            case ["GET", "result"]:
                return refusal(424, "job_failed", "no result") if found["done"] else Answer(202, [body])
            case ["GET", "events"]:
                return Answer(200, list(self._events(found)), "text/event-stream")
            case ["GET", "streams", "out"]:
                first = int(asked.query.get("from", 1))
                items = [{"seq": seq, "epoch": 1, "data": seq * 10} for seq in range(first, 4)]
                return Answer(200, [lines(items)], "application/x-ndjson")
        return refusal(404, "not_found", f"nothing at {asked.path}")

    def _events(self, found: dict[str, Any]) -> Iterator[bytes]:
        log = {"level": "info", "message": "adding", "fields": {"n": 2}, "source": "task"}
        told = [("job", found), ("log", log), ("progress", {"n": 1, "of": 2, "note": "half"}), ("end", found)]
        for seq, (kind, data) in enumerate(told, 1):
            line = msgspec.json.encode({"seq": seq, "at": found["created_at"], "kind": kind, "data": data})
            yield b"id: %d\nevent: %b\ndata: %b\n\n" % (seq, kind.encode(), line)


class _Pieces(httpx2.SyncByteStream):
    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)


def transport(daemon: FakeDaemon) -> httpx2.MockTransport:
    """The daemon for the blocking face."""

    def handle(request: httpx2.Request) -> httpx2.Response:
        target = urlsplit(str(request.url))
        query = {name: values[-1] for name, values in parse_qs(target.query).items()}
        asked = Asked(request.method, target.path, query, dict(request.headers), request.content)
        answer = daemon.answer(asked)
        return httpx2.Response(
            answer.status, headers={"Content-Type": answer.kind}, stream=_Pieces(answer.body)
        )

    return httpx2.MockTransport(handle)


class Site(Resource):
    """The daemon for the Twisted face, behind a real HTTP parser."""

    isLeaf = True

    def __init__(self, daemon: FakeDaemon) -> None:
        super().__init__()
        self._daemon = daemon

    def render(self, request: TwistedRequest) -> bytes:
        headers = {
            name.decode().lower(): values[-1].decode()
            for name, values in request.requestHeaders.getAllRawHeaders()
        }
        query = {name.decode(): values[-1].decode() for name, values in (request.args or {}).items()}
        assert request.content is not None
        asked = Asked(request.method.decode(), request.path.decode(), query, headers, request.content.read())
        answer = self._daemon.answer(asked)
        request.setResponseCode(answer.status)
        request.setHeader("Content-Type", answer.kind)
        return b"".join(answer.body)

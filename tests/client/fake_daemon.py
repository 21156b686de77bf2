"""A daemon's wire in memory, the same for all faces: jobs are done at once, and every request is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from threading import Event
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
    """One response; the body comes in these pieces, and ends once `hold` is set."""

    status: int
    body: list[bytes]
    kind: str = "application/json"
    hold: Event | None = None


def job_id(number: int) -> str:
    return f"01938f00-0000-7000-8000-{number:012d}"


def job(number: int, task: str, args: Any) -> dict[str, Any]:
    """A finished job: `add` adds, `boom` fails, everything else waits in its queue (`later` until it is asked for)."""
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


def problem(status: int, code: str, detail: str, **more: Any) -> dict[str, Any]:
    """A problem document."""
    known = {"type": "about:blank", "title": code, "status": status, "detail": detail, "code": code}
    return {**known, "retry_safe": False, **more}


def refusal(status: int, code: str, detail: str, **more: Any) -> Answer:
    body = problem(status, code, detail, **more)
    return Answer(status, [msgspec.json.encode(body)], "application/problem+json")


def lines(values: Iterable[Any]) -> bytes:
    return b"".join(msgspec.json.encode(value) + b"\n" for value in values)


class FakeDaemon:
    """Answers as the wire says. `answers` (path → answers) come first, in turn.

    Lines of a bulk submit are refused where `refuse` says so. A followed reply stays open until `hold` is set, where
    there is one, as long as its jobs are not all done.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.jobs: list[dict[str, Any]] = []
        self.answers: dict[str, list[Answer]] = {}
        self.refuse: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda _line: None
        self.hold: Event | None = None
        self._by_key: dict[str, dict[str, Any]] = {}

    def lines(self) -> list[list[dict[str, Any]]]:
        """The lines of each bulk submit so far."""
        bodies = [asked.body for asked in self.asked if asked.path == "/v1/jobs/bulk"]
        return [[msgspec.json.decode(line) for line in body.splitlines()] for body in bodies]

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
                return self._bulk(asked)
            case ["GET", "jobs"] if "id" in asked.query:
                return self._many(asked.query["id"].split(","))
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
        key = body.get("key")
        if key in self._by_key:
            return self._by_key[key]
        self.jobs.append(job(len(self.jobs) + 1, body["task"], body.get("args")))
        if key is not None:
            self._by_key[key] = self.jobs[-1]
        return self.jobs[-1]

    def _bulk(self, asked: Asked) -> Answer:
        first: list[dict[str, Any]] = []
        ends: list[dict[str, Any]] = []
        held = False
        for number, text in enumerate(asked.body.splitlines(), 1):
            line = msgspec.json.decode(text)
            if refused := self.refuse(line):
                first.append({"line": number, "problem": refused})
                continue
            row = self._made(line)
            full = {"job": row} if "full" in asked.query else {}
            first.append({"line": number, "id": row["id"], **full})
            if row["done"]:
                ends.append(
                    {"line": number, **{name: row[name] for name in ("id", "state", "result", "error")}}
                )
            else:
                held = True
        block = lines(first)
        if "follow" not in asked.query:
            return Answer(200, [block], "application/x-ndjson")
        body = [block[:50], block[50:] + b"\n", lines(reversed(ends))]
        return Answer(200, body, "application/x-ndjson", self.hold if held else None)

    def _many(self, ids: list[str]) -> Answer:
        rows = [row for row in self.jobs if row["id"] in ids]
        for row in rows:
            if row["task"] == "later":
                row |= {"state": "succeeded", "done": True, "result": "late"}
        there = {row["id"] for row in rows}
        missing = [text for text in ids if text not in there]
        return Answer(200, [msgspec.json.encode({"jobs": rows, "next": None, "missing": missing})])

    def _of_job(self, asked: Asked, method: str, text: str, rest: list[str]) -> Answer:  # noqa: PLR0911
        found = next((row for row in self.jobs if row["id"] == text), None)
        if found is None:
            return refusal(404, "not_found", f"There is no job {text}.")
        body = msgspec.json.encode(found)
        match [method, *rest]:
            case ["GET"] | ["POST", "cancel"]:
                return Answer(200, [body])
            case ["PATCH"]:
                if asked.headers.get("if-match") not in (None, f'"r{found["revision"]}"'):
                    return refusal(412, "stale", "The job has changed meanwhile.")
                found |= {**msgspec.json.decode(asked.body), "revision": found["revision"] + 1}
                return Answer(200, [msgspec.json.encode(found)])
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


class _Pieces(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body for both of httpx2's faces; only the asynchronous one can be held."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._answer.body)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._answer.body:
            yield piece
        if self._answer.hold is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._answer.hold.wait)


def transport(daemon: FakeDaemon) -> httpx2.MockTransport:
    """The daemon for the faces over httpx2."""

    def handle(request: httpx2.Request) -> httpx2.Response:
        target = urlsplit(str(request.url))
        query = {name: values[-1] for name, values in parse_qs(target.query).items()}
        asked = Asked(request.method, target.path, query, dict(request.headers), request.content)
        answer = daemon.answer(asked)
        return httpx2.Response(answer.status, headers={"Content-Type": answer.kind}, stream=_Pieces(answer))

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

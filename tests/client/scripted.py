"""Flows played against a script: no sockets, no time. What the client asks is recorded."""

from __future__ import annotations

from typing import Any

import msgspec

from jobsvc.client.core import (
    Broken,
    Close,
    Emit,
    Exchange,
    Flow,
    Open,
    Opened,
    Pause,
    Read,
    Reply,
    Request,
    Session,
)
from jobsvc.client.retrying import Retry

JOB_ID = "01938f00-0000-7000-8000-000000000001"


def session(tries: int = 4) -> tuple[Session, Player]:
    """A session whose clock stands still but for the pauses of its player; delays are at their upper bound."""
    player = Player()
    retry = Retry(uniform=lambda _low, high: high, tries=tries)
    return Session(retry=retry, clock=lambda: player.now, new_key=lambda: "made-up-key"), player


class Body:
    """A response body in pieces; a `Broken` among them breaks it, its end is clean."""

    def __init__(self, status: int, headers: dict[str, str], pieces: list[bytes | Broken]) -> None:
        self.status = status
        self.headers = headers
        self.pieces = pieces
        self.closed = False


class Player:
    """Carries out the steps of a flow with the next answers of the script."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.script: list[Reply | Body | Broken] = []
        self.asked: list[Request] = []
        self.pauses: list[float] = []
        self.emitted: list[Any] = []
        self.bodies: list[Body] = []

    def play(self, flow: Flow[Any], *script: Reply | Body | Broken) -> Any:
        """The flow's return value; fails when it asks for more, or less, than the script holds."""
        self.script = list(script)
        try:
            step = next(flow)
            while True:
                try:
                    answer = self._carry_out(step)
                except Broken as broken:
                    step = flow.throw(broken)
                else:
                    step = flow.send(answer)
        except StopIteration as stop:
            assert self.script == [], "the flow ended before the script"
            return stop.value

    def _carry_out(self, step: Any) -> Any:
        match step:
            case Exchange(request):
                answer = self._next(request)
                assert isinstance(answer, Reply)
                return answer
            case Open(request, _):
                body = self._next(request)
                if isinstance(body, Reply):
                    body = Body(body.status, dict(body.headers), [body.body])
                assert isinstance(body, Body)
                self.bodies.append(body)
                return Opened(body, body.status, body.headers)
            case Read(handle):
                piece = handle.pieces.pop(0) if handle.pieces else b""
                if isinstance(piece, Broken):
                    raise piece
                return piece
            case Close(handle):
                handle.closed = True
            case Pause(seconds):
                self.pauses.append(seconds)
                self.now += seconds
            case Emit(values):
                self.emitted += values
        return None

    def _next(self, request: Request) -> Reply | Body:
        self.asked.append(request)
        assert self.script, f"the script ends before {request.method} {request.target}"
        answer = self.script.pop(0)
        if isinstance(answer, Broken):
            raise answer
        return answer


def job(state: str = "succeeded", **fields: Any) -> dict[str, Any]:
    """A job as the daemon serves it, as far as the client must have it."""
    done = state in ("succeeded", "failed", "cancelled", "expired")
    return {"id": JOB_ID, "task": "add", "state": state, "done": done, **fields}


def reply(value: Any, status: int = 200, **headers: str) -> Reply:
    """A reply of JSON."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Reply(status, {"content-type": "application/json", **named}, msgspec.json.encode(value))


def problem(status: int, code: str, **fields: Any) -> Reply:
    """A refusal."""
    body = {
        "type": "about:blank",
        "title": code,
        "status": status,
        "detail": f"about {code}",
        "code": code,
        **fields,
    }
    return Reply(status, {"content-type": "application/problem+json"}, msgspec.json.encode(body))


def ndjson(*lines: Any, broken: Broken | None = None) -> Body:
    """A body of lines in one piece, perhaps broken off after them."""
    text = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
    return Body(200, {"content-type": "application/x-ndjson"}, [text, *([] if broken is None else [broken])])


REFUSED = Broken("connection refused", sent=False)
CUT = Broken("connection reset", sent=True)

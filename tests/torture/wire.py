"""Operations of clients on the daemon, each written into the history: what was asked, and what is known of it after."""

from __future__ import annotations

import hashlib
import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from time import monotonic
from typing import Any, Final, Literal, Protocol

from tests.torture.kinds import JobSpec, Upload
from tests.torture.records import History, Kind, Line, Outcome

READY_WAIT_S: Final = 20.0
"""How long an operation waits for the daemon to be there."""
TIMEOUT_S: Final = 10.0
"""Of a reply; a stream breathes more often than that, see `EVENTS_S`."""
EVENTS_S: Final = 20.0
"""Without so much as a heartbeat."""
HANGS_UP_S: Final = 10.0
"""A stream is followed for so long at a time, then resumed: heartbeats keep that of a job that never ends alive, and it
would hold its client for ever.
"""
DEFINITE_REFUSALS: Final = frozenset(
    (400, 401, 403, 404, 409, 410, 413, 415, 421, 422, 424, 429, 503, 504, 507)
)
"""Statuses by which the daemon says that nothing was changed. Another 5xx leaves it open."""

Form = Literal["sse", "ndjson"]
MEDIA: Final[Mapping[Form, str]] = {"sse": "text/event-stream", "ndjson": "application/x-ndjson"}
TOLD: Final = frozenset(("state", "progress", "log", "item"))
"""Kinds of events that say for good what they say; `job` is the job as it is when it is read."""
MOVED: Final = "moved"
"""The label that a job gets with its PATCH."""

BROKEN = (OSError, http.client.HTTPException)


class Place(Protocol):
    """Where the daemon is."""

    @property
    def token(self) -> str: ...
    def address(self, wait_s: float) -> tuple[str, int] | None: ...


class Absent(OSError):
    """The daemon was not there in time: nothing was sent."""


class Wire:
    """One client: one keep-alive connection, one operation at a time."""

    def __init__(self, place: Place, history: History, client: int) -> None:
        self._place = place
        self._history = history
        self.client = client
        self._connection: http.client.HTTPConnection | None = None
        self._where: tuple[str, int] | None = None

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def raw(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """One request outside the history: status, headers, body. Raises one of `BROKEN`."""
        reply = self._ask(method, path, body, headers)
        data = reply.read()
        return reply.status, {name.lower(): value for name, value in reply.getheaders()}, data

    # -- operations

    def submit(self, body: dict[str, Any]) -> Line:
        """`POST /v1/jobs`, once. `info`: it may have been stored."""
        op = self._history.invoke(self.client, "submit", key=body["key"])
        return self._simple(op, "POST", "/v1/jobs", body)

    def upload(self, specs: Sequence[JobSpec], how: Upload) -> list[Line]:
        """`POST /v1/jobs/bulk`, once: a line for each job, as if it had been submitted alone."""
        ops = [self._history.invoke(self.client, "submit", key=spec.mark) for spec in specs]
        text = b"".join(json.dumps(spec.body).encode() + b"\n" for spec in specs)
        path = "/v1/jobs/bulk" + ("?atomic=1" if how == "atomic" else "")
        lines: dict[int, dict[str, Any]] = {}
        status, why = 0, ""
        try:
            reply = self._ask("POST", path, text, {"Content-Type": "application/x-ndjson"})
            status = reply.status
            if status != 200:
                why = reply.read().decode(errors="replace")[:300]
            for line in reply:  # what was answered before a break was answered
                if line.startswith(b"{") and line.endswith(b"\n"):
                    answer = json.loads(line)
                    lines[answer["line"]] = answer
        except BROKEN as error:
            self.close()
            why = repr(error)
            if isinstance(error, Absent):
                return [self._history.done(op, "fail", why=why) for op in ops]
        return [self._line_told(op, lines.get(at), status, why) for at, op in enumerate(ops, 1)]

    def _line_told(self, op: int, answer: dict[str, Any] | None, status: int, why: str) -> Line:
        if answer is not None and "id" in answer:
            return self._history.done(op, "ok", job=answer["id"], status=status)
        if answer is not None:
            status, why = answer["problem"]["status"], str(answer["problem"])[:300]
        outcome: Outcome = "fail" if status in DEFINITE_REFUSALS else "info"
        return self._history.done(op, outcome, status=status, why=why)

    def batch(self, name: str) -> Line:
        """How many jobs bear the name of this batch."""
        op = self._history.invoke(self.client, "batch", key=name)
        try:
            status, _, data = self.raw("GET", f"/v1/jobs?label.batch={name}&limit=100")
        except BROKEN as error:
            return self._broken(op, error)
        if status != 200:
            return self._history.done(op, "fail", status=status)
        return self._history.done(op, "ok", status=status, count=len(json.loads(data)["jobs"]))

    def move(self, job: str, revision: int) -> Line:
        """`PATCH /v1/jobs/{id}`: its delay is taken away, and it gets a label."""
        op = self._history.invoke(self.client, "patch", job=job)
        body = {"run_at": None, "labels": {MOVED: "yes"}}
        return self._simple(op, "PATCH", f"/v1/jobs/{job}", body, match=revision)

    def rerun(self, job: str, key: str) -> Line:
        """`POST /v1/jobs/{id}/retry`: ok with the new job."""
        op = self._history.invoke(self.client, "retry", job=job, key=key)
        return self._simple(op, "POST", f"/v1/jobs/{job}/retry")

    def status(self, job: str, wait_s: float = 0) -> Line:
        """`GET /v1/jobs/{id}`."""
        op = self._history.invoke(self.client, "status", job=job)
        return self._simple(op, "GET", f"/v1/jobs/{job}" + (f"?wait={wait_s:g}" if wait_s else ""))

    def result(self, job: str, wait_s: float = 0) -> Line:
        """`GET /v1/jobs/{id}/result`: ok with the text of the result (200), or with the job as it is (202)."""
        op = self._history.invoke(self.client, "result", job=job)
        return self._simple(op, "GET", f"/v1/jobs/{job}/result?wait={wait_s:g}", bare=True)

    def cancel(self, job: str, mode: str) -> Line:
        """`POST /v1/jobs/{id}/cancel`."""
        op = self._history.invoke(self.client, "cancel", job=job, mode=mode)
        return self._simple(
            op,
            "POST",
            f"/v1/jobs/{job}/cancel",
            {"mode": mode, **({"grace_s": 1} if mode == "deadline" else {})},
        )

    def list(self, limit: int = 20) -> Line:
        """`GET /v1/jobs`: that it answers; what it says is looked at in the final listing."""
        op = self._history.invoke(self.client, "list")
        try:
            status, _, _ = self.raw("GET", f"/v1/jobs?limit={limit}")
        except BROKEN as error:
            return self._broken(op, error)
        return self._history.done(op, "ok" if status == 200 else "fail", status=status)

    def events(self, job: str, after: int, form: Form = "sse") -> Line:
        """`GET /v1/jobs/{id}/events`, until its end or a break; `after` is the last number received before."""
        op = self._history.invoke(self.client, "events", job=job, after=after)
        seen = Received()
        headers = {"Accept": MEDIA[form]} | ({"Last-Event-ID": str(after)} if after else {})
        why, status = "", 0
        try:
            reply = self._ask("GET", f"/v1/jobs/{job}/events", None, headers, EVENTS_S)
            status = reply.status
            if status == 200:
                hangs_up_at = monotonic() + HANGS_UP_S
                for event in _events(reply, form):
                    if event is not None:
                        seen.take(event)
                    if monotonic() > hangs_up_at:
                        break
            else:
                reply.read()
        except BROKEN as error:
            why = repr(error)
        self.close()
        outcome: Outcome = "ok" if status in (200, 204) else "fail"
        fields: dict[str, Any] = {"job": job, "after": after, "status": status, "why": why}
        fields |= {"ranges": tuple(seen.ranges), "gaps": tuple(seen.gaps), "said": tuple(seen.said)}
        fields |= {"ended": seen.ended, "state": seen.state}
        return self._history.done(op, outcome, **fields)

    # -- inside

    def _simple(
        self, op: int, method: str, path: str, body: Any = None, *, bare: bool = False, match: int = 0
    ) -> Line:
        try:
            status, headers, data = self.raw(
                method, path, body, **({"If-Match": f'"r{match}"'} if match else {})
            )
        except BROKEN as error:
            return self._broken(op, error)
        if status not in (200, 201, 202):
            outcome: Outcome = "fail" if status in DEFINITE_REFUSALS else "info"
            return self._history.done(op, outcome, status=status, why=data.decode(errors="replace")[:300])
        if bare and status == 200:
            return self._history.done(op, "ok", status=status, state="succeeded", result=data.decode())
        try:
            job = json.loads(data)
        except ValueError as error:  # a reply cut in the middle, which Content-Length should have told
            return self._history.done(op, "info", status=status, why=repr(error))
        result = data_of(data, job)
        return self._history.done(
            op, "ok", job=job["id"], status=status, replayed=headers.get("idempotency-replayed") == "true",
            state=job["state"], revision=job["revision"], epoch=job["epoch"], finished_at=job["finished_at"],
            result=result,
        )  # fmt: skip

    def _broken(self, op: int, error: Exception) -> Line:
        self.close()
        return self._history.done(op, "fail" if isinstance(error, Absent) else "info", why=repr(error))

    def _ask(
        self, method: str, path: str, body: Any, headers: dict[str, str], timeout_s: float = TIMEOUT_S
    ) -> http.client.HTTPResponse:
        where = self._place.address(READY_WAIT_S)
        if where is None:
            raise Absent("the daemon is not there")
        if self._connection is None or where != self._where:
            self.close()
            self._connection, self._where = http.client.HTTPConnection(*where), where
        self._connection.timeout = timeout_s
        if self._connection.sock is not None:
            self._connection.sock.settimeout(timeout_s)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {
            "Authorization": f"Bearer {self._place.token}",
            "Content-Type": "application/json",
            **headers,
        }
        try:
            self._connection.request(method, path, data, headers)
            return self._connection.getresponse()
        except BROKEN:
            self.close()
            raise


class Received:
    """The numbers of a subscription, as ranges."""

    def __init__(self) -> None:
        self.ranges: list[tuple[int, int]] = []
        self.gaps: list[tuple[int, int]] = []
        self.said: list[tuple[int, str]] = []
        self.ended = False
        self.state = ""

    def take(self, event: dict[str, Any]) -> None:
        """One more event."""
        if event["kind"] == "gap":
            self.gaps.append((event["data"]["from"], event["data"]["to"]))
            return
        if event["kind"] == "end":
            self.ended, self.state = True, event["data"]["state"]
            return
        seq = event["seq"]
        if event["kind"] in TOLD:
            self.said.append((seq, digest_of(event)))
        if self.ranges and self.ranges[-1][1] + 1 == seq:
            self.ranges[-1] = (self.ranges[-1][0], seq)
        else:
            self.ranges.append((seq, seq))


def digest_of(event: dict[str, Any]) -> str:
    """What an event says, in few letters: a number must never say anything else, whoever reads it."""
    text = json.dumps([event["kind"], event["data"]], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _events(reply: http.client.HTTPResponse, form: Form) -> Iterator[dict[str, Any] | None]:
    """The events of a reply; None for a line that is none. Raises http.client.HTTPException when it is cut off."""
    before = b"data: " if form == "sse" else b""
    for line in reply:
        if line.startswith(before + b"{") and line.endswith(b"\n"):
            event = json.loads(line[len(before) :])
            yield event if isinstance(event, dict) and "kind" in event else None
        else:
            yield None


def data_of(text: bytes, job: dict[str, Any]) -> str | None:
    """The result as JSON text, if there is one."""
    return None if job["state"] != "succeeded" else json.dumps(job["result"], separators=(",", ":"))


__all__ = ["BROKEN", "MOVED", "TOLD", "Absent", "Form", "Kind", "Place", "Received", "Wire", "digest_of"]

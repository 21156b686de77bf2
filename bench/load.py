"""The load generator: raw sockets and one epoll loop in a process of its own, so that the client is not what limits.

A plan comes in on standard input, an outcome goes out on standard output (both msgpack). The parent's side is `run`.
"""

from __future__ import annotations

import resource
import select
import socket
import subprocess
import sys
from itertools import cycle
from pathlib import Path
from threading import Event
from time import perf_counter

import msgspec

from bench.replies import ReplyReader

ROOT = Path(__file__).resolve().parent.parent
READ_BYTES = 1024 * 1024
QUIET_S = 60.0
"""No byte on any connection for so long: the server hangs, and the run is given up."""


class Plan(msgspec.Struct, kw_only=True):
    """What to send.

    `requests` are whole HTTP requests, sent in turn, each on the next connection that is free. The run ends after
    `count` replies or, where that is 0, with the replies to what was sent in the first `seconds`.
    """

    host: str
    port: int
    requests: list[bytes]
    connections: int = 1
    count: int = 0
    seconds: float = 0.0
    warm_up: int = 0
    """So many requests go before, one after the other, unmeasured."""
    pause_s: float = 0.0
    """Between a reply and the next request; with one connection only."""
    status: int = 200
    marker: bytes = b""
    marks: int = 0
    """How often the marker must occur in each reply; 0: any number of times."""
    gate: str = ""
    """A file that is made once each connection has sent its first request; time begins then."""


class Outcome(msgspec.Struct, kw_only=True):
    """What came back. `wrong`: replies with another status or number of marks; `sample` shows the end of the first.

    `cpu_s` is the load generator's own processor time, `server_cpu_s` that of the server, where somebody looked.
    """

    elapsed_s: float = 0.0
    replies: int = 0
    wrong: int = 0
    marks: int = 0
    body_bytes: int = 0
    cpu_s: float = 0.0
    server_cpu_s: float = 0.0
    latencies_s: list[float] = msgspec.field(default_factory=list)
    sample: str = ""


class LoadFailed(Exception):
    """The run could not be made, or its replies were not what they had to be."""


class _Connection:
    """One keep-alive connection: sends a request, reads its reply."""

    def __init__(self, plan: Plan, poll: select.epoll) -> None:
        self._socket = socket.create_connection((plan.host, plan.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._poll = poll
        self._rest = memoryview(b"")
        self.reply = ReplyReader(plan.marker)
        self.began_s = 0.0
        poll.register(self._socket, select.EPOLLIN)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, request: bytes) -> None:
        """Begin with a request; what does not fit goes when there is room."""
        self.reply.begin()
        self.began_s = perf_counter()
        sent = self._socket.send(request)
        if sent < len(request):
            self._rest = memoryview(request)[sent:]
            self._poll.modify(self._socket, select.EPOLLIN | select.EPOLLOUT)

    def ready(self, events: int) -> bool:
        """The socket can be read or written. Whether the reply is complete."""
        if events & select.EPOLLOUT and self._rest:
            self._rest = self._rest[self._socket.send(self._rest) :]
            if not self._rest:
                self._poll.modify(self._socket, select.EPOLLIN)
        if not events & ~select.EPOLLOUT:
            return False
        data = self._socket.recv(READ_BYTES)
        if not data:
            raise LoadFailed(
                f"the server closed the connection after {self.reply.body_bytes} bytes of a body"
            )
        return self.reply.feed(data)

    def close(self) -> None:
        self._socket.close()


class _Run:
    """One run of a plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._poll = select.epoll()
        self._requests = cycle(plan.requests)
        self._free = [_Connection(plan, self._poll) for _ in range(plan.connections)]
        self._by_fd = {connection.fileno(): connection for connection in self._free}
        self._outcome = Outcome()

    def run(self) -> Outcome:
        """Carry out the plan."""
        self._alone(self._plan.warm_up)
        self._outcome = outcome = Outcome()
        cpu_s, began_s = _cpu_s(), perf_counter()
        if self._plan.pause_s:
            self._alone(self._plan.count, self._plan.pause_s)
        else:
            began_s = self._together(began_s)
        outcome.elapsed_s = perf_counter() - began_s
        outcome.cpu_s = _cpu_s() - cpu_s
        for connection in self._by_fd.values():
            connection.close()
        return outcome

    def _alone(self, count: int, pause_s: float = 0.0) -> None:
        """One request after the other on the first connection."""
        clock = Event()
        for _ in range(count):
            self._free.pop().send(next(self._requests))
            while not self._some():
                pass
            if pause_s:
                clock.wait(pause_s)

    def _together(self, began_s: float) -> float:
        """As many at once as there are connections; the moment at which time began."""
        plan = self._plan
        busy = 0
        to_send = plan.count or sys.maxsize
        until_s = began_s + plan.seconds if plan.seconds else float("inf")
        gate = plan.gate
        free = self._free
        while True:
            while free and to_send and perf_counter() < until_s:
                free.pop().send(next(self._requests))
                busy += 1
                to_send -= 1
            if gate:
                began_s = perf_counter()
                Path(gate).touch()
                gate = ""
            if not busy:
                return began_s
            busy -= self._some()

    def _some(self) -> int:
        """Wait for bytes; how many replies they completed."""
        ready = self._poll.poll(QUIET_S)
        if not ready:
            raise LoadFailed(f"no byte came for {QUIET_S:g} s")
        done = 0
        for fd, events in ready:
            connection = self._by_fd[fd]
            if connection.ready(events):
                self._note(connection)
                done += 1
                self._free.append(connection)
        return done

    def _note(self, connection: _Connection) -> None:
        outcome, reply = self._outcome, connection.reply
        outcome.latencies_s.append(perf_counter() - connection.began_s)
        outcome.replies += 1
        outcome.marks += reply.marks
        outcome.body_bytes += reply.body_bytes
        plan = self._plan
        if reply.status != plan.status or (plan.marks and reply.marks != plan.marks):
            outcome.wrong += 1
            outcome.sample = outcome.sample or f"{reply.status} {reply.end.decode(errors='replace')}"


def run(plan: Plan) -> Outcome:
    """Carry out a plan in a process of its own.

    Raises:
        LoadFailed: it could not be carried out, or a reply was not what it must be.
    """
    child = subprocess.run(
        [sys.executable, "-m", "bench.load"],
        input=msgspec.msgpack.encode(plan),
        capture_output=True,
        cwd=ROOT,
        check=False,
    )
    if child.returncode:
        raise LoadFailed(child.stderr.decode(errors="replace").strip().splitlines()[-1])
    outcome = msgspec.msgpack.decode(child.stdout, type=Outcome)
    if outcome.wrong:
        raise LoadFailed(f"{outcome.wrong} of {outcome.replies} replies are wrong: {outcome.sample}")
    return outcome


def request(method: str, target: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """The child's side of `run`."""
    plan = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Plan)
    sys.stdout.buffer.write(msgspec.msgpack.encode(_Run(plan).run()))


if __name__ == "__main__":
    main()

"""The bare limits: what this machine does without jobsvc, or with one part of it alone. Each stands beside a figure.

`python -m bench.bare hello` and the like are the children that some of them need.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import monotonic, perf_counter, time_ns
from typing import IO, Any, cast

from bench.burning import burn_loops
from bench.load import ROOT, Plan, request, run

HELLO_S = 2.0
FAN_PADDING = 60
"""Bytes by which an event of the daemon is longer than the moment that it tells."""
PIPE_TRIPS = 5_000
SQLITE_GROUP = 500
SQLITE_GROUPS = 40
SQLITE_SINGLES = 500
STREAM_ITEMS = 500_000
START_TRIES = 3


class Hello:
    """A Klein server in a child: `/` says hello, `/echo` gives back what was posted."""

    def __init__(self) -> None:
        began = perf_counter()
        self._child = subprocess.Popen(
            [*_SELF, "hello"], cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE
        )
        self.port = int(_out(self._child).readline())
        self.start_s = perf_counter() - began
        self.pid = self._child.pid

    def close(self) -> None:
        """Stop it."""
        self._child.kill()
        self._child.communicate()

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        self._child.terminate()
        self._child.wait()

    def requests_per_s(self, connections: int, *, seconds: float = HELLO_S) -> float:
        """What the load generator gets out of it."""
        plan = Plan(
            host="127.0.0.1", port=self.port, requests=[self._post("/", b"{}")], connections=connections
        )
        plan.seconds, plan.warm_up = seconds, 100
        outcome = run(plan)
        return outcome.replies / outcome.elapsed_s

    def latency_s(self, count: int, pause_s: float = 0.0) -> float:
        """Median time of a request on one connection."""
        plan = Plan(
            host="127.0.0.1", port=self.port, requests=[self._post("/", b"{}")], count=count, warm_up=100
        )
        plan.pause_s = pause_s
        return median(run(plan).latencies_s)

    def echo_bytes_per_s(self, size: int, count: int, connections: int) -> float:
        """Bytes a second, posted and given back."""
        plan = Plan(
            host="127.0.0.1", port=self.port, requests=[self._post("/echo", b"x" * size)], count=count
        )
        plan.connections = connections
        outcome = run(plan)
        return outcome.body_bytes / outcome.elapsed_s

    def _post(self, target: str, body: bytes) -> bytes:
        return request("POST", target, {"Host": "127.0.0.1", "Content-Type": "application/json"}, body)


class Fan:
    """A Twisted server in a child that writes one line of the moment, again and again, to all who are connected."""

    def __init__(self, every_s: float) -> None:
        self._child = subprocess.Popen(
            [*_SELF, "fan", str(every_s)], cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE
        )
        self.port = int(_out(self._child).readline())
        self.pid = self._child.pid

    def close(self) -> None:
        """Stop it."""
        self._child.kill()
        self._child.communicate()


@contextmanager
def fan(every_s: float) -> Iterator[Fan]:
    """Such a server, for the length of a `with`."""
    server = Fan(every_s)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def hello() -> Iterator[Hello]:
    """A Klein hello server, for the length of a `with`."""
    server = Hello()
    try:
        yield server
    finally:
        server.close()


def hello_start_s() -> float:
    """From nothing to a Klein server that listens."""
    times = []
    for _ in range(START_TRIES):
        with hello() as server:
            times.append(server.start_s)
    return median(times)


def hello_stop_s() -> float:
    """From SIGTERM to the end of a Klein server."""
    times = []
    for _ in range(START_TRIES):
        with hello() as server:
            began = perf_counter()
            server.stop()
            times.append(perf_counter() - began)
    return median(times)


def python_start_s() -> float:
    """From nothing to a Python that has imported msgspec, and back."""
    times = []
    for _ in range(START_TRIES):
        began = perf_counter()
        subprocess.run([sys.executable, "-c", "import msgspec"], check=True)
        times.append(perf_counter() - began)
    return median(times)


def sqlite_grouped_per_s(folder: Path, groups: int = SQLITE_GROUPS) -> float:
    """Jobs a second through our schema: submit, claim and settle in transactions of 500, each flushed to the disk."""
    return _sqlite(folder, SQLITE_GROUP, groups)


def sqlite_single_per_s(folder: Path, singles: int = SQLITE_SINGLES) -> float:
    """The same with one job in each transaction."""
    return _sqlite(folder, 1, singles)


def burn_per_s(rounds: int, count: int, processes: int) -> float:
    """How many loops of `rounds` so many processes do in a second, side by side."""
    words = [*_SELF, "burn", str(rounds), str(count)]
    children = [
        subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(processes)
    ]
    for child in children:
        _out(child).readline()  # it is ready
    for child in children:
        cast("IO[bytes]", child.stdin).write(b"\n")
        cast("IO[bytes]", child.stdin).flush()
    return sum(count / float(child.communicate()[0]) for child in children)


def pipe_trip_s(trips: int = PIPE_TRIPS) -> float:
    """A byte to another process and back."""
    with subprocess.Popen([*_SELF, "pong"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        to, back = cast("IO[bytes]", child.stdin).fileno(), _out(child).fileno()
        os.read(back, 1)  # it is ready
        began = perf_counter()
        for _ in range(trips):
            os.write(to, b"x")
            os.read(back, 1)
        return (perf_counter() - began) / trips


def pipe_items_per_s(items: int = STREAM_ITEMS) -> float:
    """Small JSON items, encoded one by one in one process, counted in another."""
    with subprocess.Popen([*_SELF, "items", str(items)], cwd=ROOT, stdout=subprocess.PIPE) as child:
        back = _out(child).fileno()
        os.read(back, 1)
        began = perf_counter()
        while os.read(back, 65_536):
            pass
        return items / (perf_counter() - began)


def sleepers_s(count: int, seconds: float) -> float:
    """So many coroutines that sleep, in a loop of their own process."""
    words = [*_SELF, "sleepers", str(count), str(seconds)]
    return float(subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)


def _sqlite(folder: Path, group: int, groups: int) -> float:
    """Each transaction submits a group, claims it, and settles the one before, as the daemon does under load."""
    from random import getrandbits

    from jobsvc.model.ids import IdMaker
    from jobsvc.model.job import Job
    from jobsvc.model.task import Policy
    from jobsvc.ports import Claim, Settled
    from jobsvc.store.sqlite import Call, SqliteStore

    new_id = IdMaker(getrandbits)
    policy = _encoded(Policy())
    with TemporaryDirectory(prefix="bare-", dir=folder) as own:
        store = SqliteStore(str(Path(own) / "jobs.db"), "power")
        store.open()
        claimed: list[Job] = []
        began = perf_counter()
        for _ in range(groups + 1):
            at = time_ns() // 1000
            jobs = [
                Job(id=new_id(at), task="noop", executor="process", created_at=at, policy=policy, args=b"{}")
                for _ in range(group)
            ]
            ends = [
                Settled(
                    no=job.no, epoch=job.epoch, owner=job.owner or "", state="succeeded", reason=None,
                    attempt=job.attempt, started_at=at, finished_at=at, seq=job.seq + 1, revision=job.revision + 1,
                    result=b"null", error=None,
                )
                for job in claimed
            ]  # fmt: skip
            claim = Claim(owner="bench", executor="process", wants={"noop": group}, limit=group, at=at)
            calls = [Call("submit", (jobs,)), Call("claim", ([claim],))]
            if ends:
                calls.append(Call("settle", (ends,)))
            _, [claimed], *settled = store.group(calls)
            assert all(map(all, settled)), "a write was refused"
            assert len(claimed) == group, "not all were claimed"
        elapsed_s = perf_counter() - began
        store.close()
    return group * groups / elapsed_s


def _encoded(value: object) -> bytes:
    import msgspec

    return msgspec.json.encode(value)


def _out(child: subprocess.Popen[bytes]) -> IO[bytes]:
    assert child.stdout is not None
    return child.stdout


_SELF = (sys.executable, "-m", "bench.bare")


# -- the children


def _child_hello() -> None:
    """Serve until killed, or until the parent is gone."""
    from klein import Klein
    from twisted.internet import endpoints, reactor
    from twisted.web.server import Request, Site

    app = Klein()

    def reply(request: Request, body: bytes) -> bytes:
        request.setHeader(b"content-type", b"application/json")
        request.setHeader(b"content-length", b"%d" % len(body))
        return body

    @app.route("/", methods=["POST"])
    def hello(request: Request) -> bytes:
        return reply(request, b'{"hello":"world"}')

    @app.route("/echo", methods=["POST"])
    def echo(request: Request) -> bytes:
        return reply(request, cast("IO[bytes]", request.content).read())

    site: Any = Site(app.resource(), parsePOSTFormSubmission=False)
    listening = endpoints.serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(site)
    listening.addCallback(lambda port: print(port.getHost().port, flush=True))
    reactor.run()


def _child_fan(every_s: float) -> None:
    """The same bytes to every connection, about as many as an event of the daemon has: the least there is to do."""
    from twisted.internet import endpoints, reactor, task
    from twisted.internet.protocol import Factory, Protocol

    guests: set[Protocol] = set()

    class Guest(Protocol):
        def dataReceived(self, data: bytes) -> None:
            guests.add(self)

        def connectionLost(self, reason: object = None) -> None:
            guests.discard(self)

    def say() -> None:
        line = b'id: 7\nevent: item\ndata: {"data":"at %.6f"%b}\n\n' % (monotonic(), b" " * FAN_PADDING)
        for guest in guests:
            cast("Any", guest.transport).writeSequence((b"%x\r\n" % len(line), line, b"\r\n"))

    server = endpoints.serverFromString(cast("Any", reactor), "tcp:0:interface=127.0.0.1:backlog=5000")
    server.listen(Factory.forProtocol(Guest)).addCallback(lambda port: print(port.getHost().port, flush=True))
    task.LoopingCall(say).start(every_s, now=False)
    cast("Any", reactor).run()


def _child_burn(rounds: int, count: int) -> None:
    print("ready", flush=True)
    sys.stdin.readline()
    began = perf_counter()
    for _ in range(count):
        burn_loops(rounds)
    print(perf_counter() - began, flush=True)


def _child_pong() -> None:
    os.write(1, b"r")
    while data := os.read(0, 1):
        os.write(1, data)


def _child_items(count: int) -> None:
    import msgspec

    encode = msgspec.json.encode
    os.write(1, b"r")
    with os.fdopen(1, "wb", buffering=65_536) as out:
        for n in range(count):
            out.write(b"%b\n" % encode(n))


def _child_sleepers(count: int, seconds: float) -> None:
    async def all_of_them() -> float:
        began = perf_counter()
        await asyncio.gather(*(asyncio.sleep(seconds) for _ in range(count)))
        return perf_counter() - began

    with asyncio.Runner() as runner:
        print(runner.run(all_of_them()))


def main(words: list[str]) -> None:
    """Be the child that is asked for."""
    match words:
        case ["hello"]:
            _child_hello()
        case ["fan", every_s]:
            _child_fan(float(every_s))
        case ["burn", rounds, count]:
            _child_burn(int(rounds), int(count))
        case ["pong"]:
            _child_pong()
        case ["items", count]:
            _child_items(int(count))
        case ["sleepers", count, seconds]:
            _child_sleepers(int(count), float(seconds))
        case _:
            raise SystemExit(
                "usage: python -m bench.bare hello | fan S | burn ROUNDS COUNT | pong | items N | sleepers N S"
            )


if __name__ == "__main__":
    main(sys.argv[1:])

"""The asynchronous clients and the executor against a real daemon, over its Unix socket, which outlives restarts."""

from __future__ import annotations

import asyncio
from concurrent.futures import CancelledError, as_completed
from typing import TYPE_CHECKING

import pytest
import pytest_twisted
from twisted.internet.defer import DeferredList

from jobsvc.client import AsyncClient, Client, JobFailed, Refused, TwistedClient
from tests.integration.daemon import Daemon, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.daemon import WheelEnv

TASKS = """
import asyncio
from pathlib import Path
from jobsvc import task

@task(executor="process")
def add(a: int, b: int = 0) -> int:
    return a + b

@task(executor="process")
def divide(a: int, b: int) -> float:
    return a / b

@task(executor="process")
def talk(words: list[str]):
    yield from words

@task(retries=3)
async def gated(gate: str) -> str:
    while not Path(gate).exists():
        await asyncio.sleep(0.01)
    return gate
"""

RESULT_S = 60.0
"""One result on a busy machine, a restart of the daemon included."""
LISTENERS = ("--listen", "unix:jobs.sock", "--listen", "tcp:0:interface=127.0.0.1")


@pytest.fixture(scope="module")
def daemon(wheel_env: WheelEnv, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all."""
    with running(Daemon(wheel_env, tmp_path_factory.mktemp("clients"), LISTENERS), TASKS) as started:
        yield started


@pytest.fixture
def url(daemon: Daemon) -> str:
    return f"unix:{daemon.folder / 'jobs.sock'}"


def test_the_asyncio_face(daemon: Daemon, url: str) -> None:
    """Joined submits, results, refusals, maps, streams, events and a cancelled wait."""

    async def story() -> None:
        async with AsyncClient(url, daemon.token) as client:
            jobs = await asyncio.gather(*(client.submit("add", [n, 1], priority=n % 3) for n in range(200)))
            assert [(job.args, job.priority) for job in jobs] == [([n, 1], n % 3) for n in range(200)]
            assert len({job.id for job in jobs}) == 200
            assert all(job.created_at and job.executor == "process" and job.links for job in jobs)
            assert await client.result(jobs[150], timeout=RESULT_S) == 151
            mixed = await asyncio.gather(
                *(client.submit("add", [n]) for n in (1, "x", 3)),
                client.submit("nope"),
                return_exceptions=True,
            )
            assert [getattr(each, "code", "accepted") for each in mixed] == [
                "accepted",
                "invalid_args",
                "accepted",
                "no_such_task",
            ]
            same = await asyncio.gather(*(client.submit("add", [5], key="same") for _ in range(9)))
            assert len({job.id for job in same}) == 1
            assert sum([value async for value in client.map("add", ([n, n] for n in range(1000)))]) == 999_000
            with pytest.raises(JobFailed, match="ZeroDivisionError"):
                await client.call("divide", [1, 0], timeout=RESULT_S)
            spoken = await client.submit("talk", [["a", "b"]])
            assert [word async for word in client.stream(spoken)] == ["a", "b"]
            assert [event.kind async for event in client.events(spoken)][-1] == "end"
            held = await client.submit("gated", ["never"])
            waiting = asyncio.ensure_future(client.wait(held))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert not (await client.get(held)).done
            assert (await client.cancel(held)).id == held.id

    with asyncio.Runner() as runner:
        runner.run(story())


@pytest_twisted.ensureDeferred
async def test_the_twisted_face_joins_submits(daemon: Daemon, url: str) -> None:
    """Submits of one moment have their own jobs and refusals, whatever request they went with."""
    from twisted.internet import reactor

    client = TwistedClient(reactor, url, daemon.token)
    asked = [client.submit("add", [n]) for n in (*range(100), "x")]
    *made, (accepted, refused) = await DeferredList(asked, consumeErrors=True)
    assert [job.args for ok, job in made if ok] == [[n] for n in range(100)]
    assert (accepted, type(getattr(refused, "value", None))) == (False, Refused)
    assert await client.result(made[42][1], timeout=RESULT_S) == 42
    await client.close()


def test_the_executor(daemon: Daemon, url: str) -> None:
    """Thousands of futures one by one; failures, refusals and cancelled ones in their places."""
    with Client(url, daemon.token) as client, client.executor(labels={"by": "executor"}) as jobs:
        futures = [jobs.submit("add", n, 1) for n in range(2000)]
        failing, refused = jobs.submit("divide", 1, 0), jobs.submit("add", "x")
        held = jobs.submit("gated", gate="never")
        assert sum(future.result(RESULT_S) for future in as_completed(futures, RESULT_S)) == 2_001_000
        assert isinstance(failing.exception(RESULT_S), JobFailed)
        assert isinstance(refused.exception(RESULT_S), Refused)
        job = daemon.until(str(held.job_id), lambda row: row["state"] == "running")
        assert job["labels"] == {"by": "executor"}
        assert held.cancel()
        with pytest.raises(CancelledError):
            held.result(0)
        assert daemon.done(str(held.job_id))["state"] == "cancelled"


def test_the_executor_outlasts_a_killed_daemon(daemon: Daemon, url: str) -> None:
    """Jobs accepted before, lines sent while it is away, and the new daemon's answers: nothing lost, nothing twice."""
    with Client(url, daemon.token) as client, client.executor(labels={"by": "restart"}) as jobs:
        accepted = [jobs.submit("gated", f"gate{n % 3}") for n in range(60)]
        assert jobs.submit("add", 1).result(RESULT_S) == 1
        daemon.kill()
        away = [jobs.submit("add", n) for n in range(500)]
        daemon.start()
        assert [future.result(RESULT_S) for future in away] == list(range(500))
        for gate in range(3):
            daemon.open_gate(f"gate{gate}")
        assert [future.result(RESULT_S) for future in accepted] == [f"gate{n % 3}" for n in range(60)]
        rows = list(client.list(labels={"by": "restart"}))
        assert len(rows) == 561

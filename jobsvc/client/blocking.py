"""F2: the blocking face: `Client`. Runs flows over httpx2; holds no knowledge of the protocol."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from threading import Event as Alarm
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from jobsvc.client import calls, flows, mapping, streaming
from jobsvc.client.bulk import MapLines, Submission, SubmitLines, batches
from jobsvc.client.core import Broken, Emit, Flow, Reply, Request, Session
from jobsvc.client.discovery import find_target
from jobsvc.client.errors import ClientError, bulk_ids
from jobsvc.client.httpx_wire import Body, HttpxWire
from jobsvc.client.replies import value_of
from jobsvc.client.shapes import Args, CancelMode, Changes, Event, Item, Job, JobFilters, Options, id_of

if TYPE_CHECKING:
    import httpx2

    from jobsvc.client.executor import JobExecutor

T = TypeVar("T")


class Client:
    """Submit jobs and take their results, from ordinary blocking code; threads may share one.

    Without arguments it finds the daemon of this machine (`discovery.find_target`): `url` and `token` here, then
    `$JOBSVC_URL` and `$JOBSVC_TOKEN`, then what the daemon wrote into its data directory. `headers` go
    with every request (a `traceparent`, an `X-Request-ID`). `session` sets retries and clock, `transport` and `pause`
    are for tests.

    Everything may raise `Refused` (the daemon said no) and `Unreachable` (it did not answer). Requests that may be
    repeated are, with growing delays; submits may, since each has a key.

    Raises:
        Unreachable: there is no daemon to be found.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        data_dir: str | Path | None = None,
        headers: Mapping[str, str] | None = None,
        session: Session | None = None,
        transport: httpx2.BaseTransport | None = None,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        target = find_target(url, token, data_dir, environ=os.environ)
        self._target = target
        self._headers = dict(headers or {})
        self._session = session or Session()
        self._wire = HttpxWire(target, transport, pause or Alarm().wait, self._headers)

    def close(self) -> None:
        """Close all connections. Iterators still open end with `Unreachable`."""
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def submit(self, task: str, args: Args = None, /, **options: Unpack[Options]) -> Job:
        """A new job: `submit("thumbnail", {"path": "a.png"}, priority=5)`. Returns once it is stored.

        With `key=` the same key and body give the same job again.
        """
        return self._run(flows.submit(self._session, task, args, options))

    def submit_many(self, jobs: Iterable[Submission]) -> list[str]:
        """The ids of many new jobs, in order; each is `(task, args)` or a mapping with the fields of a submit.

        Raises:
            BulkRefused: some lines were refused; `ids` tells which. The others are accepted.
        """
        source = batches(jobs, SubmitLines(), self._session.clock)
        with closing(self._emitted(mapping.outcomes(self._session, source, follow=False))) as values:
            return bulk_ids(list(values))

    def call(
        self, task: str, args: Args = None, /, *, timeout: float | None = None, **options: Unpack[Options]
    ) -> Any:
        """Submit, wait, and give the result: `call("add", [1, 2])`. `timeout` (seconds) bounds the wait, not the job.

        Raises:
            JobFailed: the job ended without a result; `JobCancelled` and `JobLost` are kinds of it.
            WaitTimeout: the time is up; the job goes on.
        """
        return self._run(flows.call(self._session, task, args, options, timeout))

    def map(
        self, task: str, inputs: Iterable[Args], /, *, return_errors: bool = False, **options: Unpack[Options]
    ) -> Outcomes:
        """One job for each of `inputs`; the results, in the order of the inputs, as they become ready.

        Inputs are read lazily, two batches ahead of what was taken, so they may be endless. The failure of a job is
        raised in its place, and the iteration may go on after it; with `return_errors` it is returned instead. With
        `key="name"` job n has the key `name:n`: the same map again takes up what is there.
        """
        source = batches(inputs, MapLines(task, options), self._session.clock)
        flow = mapping.outcomes(self._session, source, follow=True)
        return Outcomes(self._emitted(flow), return_errors=return_errors)

    def executor(
        self, *, transport: httpx2.AsyncBaseTransport | None = None, **options: Unpack[Options]
    ) -> JobExecutor:
        """Jobs as futures of the standard library: `with client.executor() as jobs: jobs.submit("add", 1, 2).result()`.

        `options` go for all its jobs; with `key="name"` job n has the key `name:n`. It has connections and a thread of
        its own, and goes on when this client is closed. `transport` is for tests.
        """
        from jobsvc.client.executor import JobExecutor
        from jobsvc.client.httpx_async_wire import AsyncHttpxWire

        return JobExecutor(self._session, AsyncHttpxWire(self._target, transport, self._headers), options)

    def get(self, job: Job | str) -> Job:
        """The job as it is now."""
        return self._run(flows.ask_job(self._session, calls.get(id_of(job))))

    def wait(self, job: Job | str, timeout: float | None = None) -> Job:
        """The job once it is done, whatever its outcome; outlasts a restart of the daemon.

        Raises:
            WaitTimeout: not done after `timeout` seconds; the job goes on.
        """
        return self._run(flows.wait(self._session, id_of(job), timeout))

    def result(self, job: Job | str, timeout: float | None = None) -> Any:
        """The result, waited for. Raises `JobFailed`, `WaitTimeout` as `call` does."""
        return self._run(flows.result(self._session, id_of(job), timeout))

    def events(
        self, job: Job | str, *, from_: int | None = None, kinds: Iterable[str] = ()
    ) -> Generator[Event, None, None]:
        """The job's events up to `end`, live, from number `from_` (default: the first); reconnects by itself.

        `kinds` picks some of: job, state, progress, log, item, gap, end.
        """
        return self._emitted(streaming.events(self._session, id_of(job), from_=from_, kinds=kinds))

    def stream(self, job: Job | str, name: str = "out", *, from_: int = 1) -> Generator[Any, None, None]:
        """The values of one stream, live; reconnects by itself and goes on where it stopped.

        Raises:
            StreamBroken: the values do not follow on (a further attempt began anew, or items were pushed out).
            JobFailed: after the last value, when the job did not succeed.
        """
        return self._emitted(streaming.values(self._session, id_of(job), name, from_))

    def items(self, job: Job | str, name: str = "out", *, from_: int = 1) -> Generator[Item, None, None]:
        """As `stream`, with numbers and attempts; restarts and gaps come as items of their own."""
        return self._emitted(streaming.items(self._session, id_of(job), name, from_))

    def cancel(self, job: Job | str, mode: CancelMode = "polite", *, grace_s: float | None = None) -> Job:
        """Ask a job to stop. The answer is `cancelled`, or `stopping` until the code has been seen to stop.

        Raises:
            Refused: `conflict` when it is done already, `cannot_kill` when its executor cannot do this mode.
        """
        return self._run(flows.ask_job(self._session, calls.cancel(id_of(job), mode, grace_s)))

    def update(self, job: Job | str, /, *, if_match: int | None = None, **changes: Unpack[Changes]) -> Job:
        """Change a job that waits: `update(job, priority=50)`; `priority`, `run_at`, `timeouts`, `labels`.

        `if_match` is the revision the job must still have. A `Job` without it is changed only as it was seen; an id
        without it is changed as the job now is.

        Raises:
            Refused: `stale` when the job has changed meanwhile, `conflict` when it waits no more.
        """
        return self._run(flows.update(self._session, job, changes, if_match))

    def retry(self, job: Job | str) -> Job:
        """A new job with the same task, arguments and policy as one that is done."""
        return self._run(flows.ask_job(self._session, calls.retry(id_of(job))))

    def list(self, *, limit: int | None = None, **filters: Unpack[JobFilters]) -> Generator[Job, None, None]:
        """Jobs, newest first, read page by page as they are taken; without `args` and `result`."""
        return self._emitted(flows.list_jobs(self._session, filters, limit))

    def tasks(self) -> Any:
        """What the daemon can run, as `GET /v1/tasks` gives it."""
        return value_of(self.request(calls.tasks()))

    def info(self) -> Any:
        """The daemon's version, limits and defaults."""
        return value_of(self.request(calls.info()))

    def request(self, request: Request) -> Reply:
        """Any call of `jobsvc.client.calls`, with the retries and errors of the others; the reply as it came."""
        return self._run(flows.ask(self._session, request))

    def _run(self, flow: Flow[T]) -> T:
        """The flow's return value."""
        bodies: dict[int, Body] = {}
        carry_out = self._wire.carry_out
        try:
            step = next(flow)
            while True:
                try:
                    answer = carry_out(step, bodies)
                except Broken as broken:
                    step = flow.throw(broken)
                else:
                    step = flow.send(answer)
        except StopIteration as stop:
            value: T = stop.value
            return value
        finally:
            _release(flow, bodies)

    def _emitted(self, flow: Flow[None]) -> Generator[Any, None, None]:
        """What the flow emits, one by one; the flow goes on only as the values are taken."""
        bodies: dict[int, Body] = {}
        carry_out = self._wire.carry_out
        try:
            step = next(flow)
            while True:
                if isinstance(step, Emit):
                    yield from step.values
                    step = flow.send(None)
                    continue
                try:
                    answer = carry_out(step, bodies)
                except Broken as broken:
                    step = flow.throw(broken)
                else:
                    step = flow.send(answer)
        except StopIteration:
            return
        finally:
            _release(flow, bodies)


class Outcomes:
    """What `map` gives: results in order; failures are raised in their place, and the iteration may go on.

    Whoever leaves early may `close()` it; the jobs already submitted go on.
    """

    def __init__(self, values: Generator[Any, None, None], *, return_errors: bool) -> None:
        self._values = values
        self._return_errors = return_errors

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        value = next(self._values)
        if isinstance(value, ClientError) and not self._return_errors:
            raise value
        return value

    def close(self) -> None:
        """Read no more, and give the connections back."""
        self._values.close()


def _release(flow: Flow[Any], bodies: dict[int, Body]) -> None:
    """After the end, however it came: no connection stays behind."""
    flow.close()
    for body in bodies.values():
        body.response.close()

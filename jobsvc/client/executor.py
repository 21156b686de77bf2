"""F2: `JobExecutor`: jobs as futures of the standard library."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from itertools import count
from typing import Any

from jobsvc.client.arguments import arguments_of
from jobsvc.client.bulk import MapLines
from jobsvc.client.core import Session
from jobsvc.client.executor_loop import ExecutorLoop
from jobsvc.client.followed import JobFuture
from jobsvc.client.httpx_async_wire import AsyncHttpxWire
from jobsvc.client.shapes import Options

_loops: weakref.WeakSet[ExecutorLoop] = weakref.WeakSet()


@atexit.register
def _finish() -> None:
    for loop in list(_loops):
        loop.close()
        loop.join()


class JobExecutor(Executor):
    """Runs jobs behind the interface of `concurrent.futures`; made by `Client.executor`.

    `submit` returns at once. A thread behind it joins what was submitted into a few requests, each line with a key of
    its own, so that a request whose answer was lost is sent again and a restart of the daemon goes unnoticed. Futures
    get the job's result, or the exceptions of `Client.result`; a line refused for load is sent again for a while,
    another refusal is the future's exception.

    `with client.executor() as jobs: print(jobs.submit("add", 1, 2).result())`. Leaving the block waits for all jobs.
    Callbacks of futures run on the thread behind: they must not block.
    """

    def __init__(
        self,
        session: Session,
        wire: AsyncHttpxWire,
        options: Options,
    ) -> None:
        given: Options = {**options}
        if given.get("key") is None:
            given["key"] = session.new_key()
        self._options = given
        self._writers: dict[str, MapLines] = {}
        self._numbers = count(1)
        self._loop = ExecutorLoop(session, wire)
        # As with the executors of the standard library: one that nobody refers to any more takes nothing new, and the
        # program ends only when all futures are done.
        weakref.finalize(self, self._loop.close).atexit = False
        _loops.add(self._loop)

    def submit(self, fn: str | Callable[..., Any], /, *args: Any, **kwargs: Any) -> JobFuture:
        """A job of the task `fn`: its name, or the function decorated with `@task`; the rest are its arguments.

        Waits only when very much is unsent (`executor_loop.UNSENT_LINES`), which is when the daemon does not keep up
        or cannot be reached.

        Raises:
            TypeError: `fn` is no task; arguments that do not fit its signature, or that JSON cannot hold.
            ValueError: NaN or an infinity among the arguments.
            RuntimeError: the executor was shut down.
        """
        task, values = arguments_of(fn, args, kwargs)
        write = self._writers.get(task)
        if write is None:
            write = self._writers[task] = MapLines(task, self._options)
        line = bytearray()
        write(line, next(self._numbers), values)
        future = JobFuture(bytes(line), self._loop)
        self._loop.put(future)
        return future

    def map(
        self,
        fn: str | Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[Any]:
        """As `Executor.map`: all jobs are submitted at once, their results come in order; `chunksize` means nothing.

        For endless or very many inputs `Client.map` is better: it reads them as the results are taken.
        """
        named: Any = fn
        return super().map(named, *iterables, timeout=timeout, chunksize=chunksize)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more jobs. With `wait` it returns when every future is done, and the connections are closed.

        With `cancel_futures` all that are not done are cancelled, as by their own `cancel`; also those of jobs that
        run already, which are asked to stop.
        """
        self._loop.close()
        if cancel_futures:
            for future in list(self._loop.pending):
                future.cancel()
        if wait:
            self._loop.join()

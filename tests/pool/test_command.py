"""The `command` executor with real programs: lines, exits, stops, and a program that waits for its readers."""

from __future__ import annotations

import base64
import errno
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import pytest
import pytest_twisted
from twisted.logger import ILogObserver, globalLogPublisher
from zope.interface import implementer

from jobsvc.model.errors import Exit
from jobsvc.model.frames import Again, Begin, Cancel, Credit, Items, Message, Recall, Result, Returned
from jobsvc.model.limits import ITEM_MAX_BYTES, STDERR_TAIL_BYTES, STREAM_WINDOW_BYTES
from jobsvc.model.task import CommandSpec, TaskSpec
from jobsvc.pool import command, posix
from jobsvc.pool.command import CommandWorker
from jobsvc.ports import Death, Worker
from tests.pool.harness import BOOT, Record, alive, gone, launcher, pause, reactor, start


class Engine(Record):
    """The listener of one command worker."""

    def __init__(self, slots: int = 4) -> None:
        super().__init__()
        self.deaths: list[Death] = []
        self.worker = CommandWorker(
            worker_id="command@01234567",
            slots=slots,
            launcher=launcher(),
            listener=self,
            monotonic=time.monotonic,
            now_us=lambda: 42,
        )

    def define(self, name: str, *argv: str, **more: Any) -> None:
        spec = TaskSpec(
            name=name,
            module="m",
            executor="command",
            args_tree=b"",
            args_schema=b"",
            result_schema=b"",
            command=CommandSpec(argv, **more),
        )
        self.worker.tasks = {**self.worker.tasks, name: spec}

    def script(self, name: str, code: str, **more: Any) -> None:
        """A task that runs this Python."""
        self.define(name, sys.executable, "-c", code.replace("{", "{{").replace("}", "}}"), **more)

    async def result(self, no: int = 1) -> Result:
        """Of that attempt; it is its last word."""
        found = await self.until(lambda: [result for result in self.of(Result) if result.no == no])
        assert [message for message in self.messages if getattr(message, "no", 0) == no][-1] is found[0]
        return found[0]

    async def run(self, name: str, body: bytes = b"{}") -> Result:
        self.worker.send([start(name, body=body, executor="command")])
        return await self.result()

    # -- WorkerListener

    def tasks_changed(self, tasks: Mapping[str, TaskSpec]) -> None:
        raise AssertionError

    def worker_ready(self, worker: Worker) -> None:
        assert worker is self.worker

    def worker_retiring(self, worker: Worker) -> None:
        raise AssertionError

    def worker_messages(self, worker: Worker, messages: Sequence[Message]) -> None:
        assert worker is self.worker
        self.messages += messages
        self.happened()

    def worker_died(self, worker: Worker, death: Death) -> None:
        self.deaths.append(death)


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest_twisted.async_yield_fixture
async def stopped(engine: Engine) -> AsyncIterator[None]:
    yield
    await engine.worker.stop().addTimeout(30, reactor())


pytestmark = pytest.mark.usefixtures("stopped")


@pytest_twisted.ensureDeferred
async def test_lines_are_items_and_the_code_is_the_result(engine: Engine) -> None:
    """A placeholder fills one element: no splitting, no shell."""
    engine.define("show", "printf", "%s\\n", "{first}", "-{second}-", "$HOME")
    result = await engine.run("show", b'{"first": "a b; c", "second": 7}')
    assert (result.error, result.body, result.began_us) == (None, b'{"code":0}', 42)
    assert engine.items() == ["a b; c", "-7-", "$HOME"]
    assert engine.of(Begin) == [Begin(1, 1, 42)]
    assert isinstance(engine.messages[0], Begin)


@pytest_twisted.ensureDeferred
async def test_an_array_fills_the_placeholders_in_order(engine: Engine) -> None:
    engine.define("show", "echo", "{b}", "{a}", "{b}")
    await engine.run("show", b'["x", true]')
    assert engine.items() == ["x true x"]


@pytest_twisted.ensureDeferred
async def test_stderr_is_log_and_the_end_of_it_the_error(engine: Engine) -> None:
    engine.script(
        "bad", "import sys; sys.stderr.write('a' * 9000 + '\\nlast words'); print('out'); sys.exit(3)"
    )
    result = await engine.run("bad")
    assert result.error is not None
    assert (result.error.kind, result.error.exit) == ("crashed", Exit(code=3))
    assert result.error.message.endswith("aaa\nlast words")
    assert len(result.error.message) <= STDERR_TAIL_BYTES
    assert engine.logs("stderr") == ["a" * 9000, "last words"]
    assert engine.items() == ["out"]


@pytest_twisted.ensureDeferred
async def test_other_codes_may_be_fine(engine: Engine) -> None:
    engine.define("none", "grep", "needle", "/dev/null", ok_codes=(0, 1))
    result = await engine.run("none")
    assert (result.error, result.body) == (None, b'{"code":1}')


@pytest_twisted.ensureDeferred
async def test_a_signal_is_named(engine: Engine) -> None:
    engine.script("segv", "import os; os.kill(os.getpid(), 11)")
    result = await engine.run("segv")
    assert result.error is not None
    assert (result.error.kind, result.error.exit) == ("crashed", Exit(signal=11, name="SIGSEGV", oom=False))
    assert "SIGSEGV" in result.error.message


@pytest.mark.parametrize(
    ("retry_codes", "ends", "again"),
    [
        (None, "sys.exit(75)", None),
        ((75,), "sys.exit(75)", None),
        ((75,), "sys.exit(1)", Again("never")),
        ((), "sys.exit(75)", Again("never")),
        ((75,), "os.kill(os.getpid(), 11)", None),
    ],
)
@pytest_twisted.ensureDeferred
async def test_exit_codes_say_whether_another_try_is_worth_it(
    engine: Engine, retry_codes: tuple[int, ...] | None, ends: str, again: Again | None
) -> None:
    """By default every one that is an error; a signal is no code."""
    engine.script("ends", f"import os, sys; {ends}", retry_codes=retry_codes)
    result = await engine.run("ends")
    assert result.error is not None
    assert (result.error.kind, result.again) == ("crashed", again)


@pytest_twisted.ensureDeferred
async def test_no_such_program(engine: Engine) -> None:
    engine.define("none", "no-such-program-here", "{x}")
    result = await engine.run("none", b'{"x": 1}')
    assert result.error is not None
    assert result.error.kind == "crashed"
    assert "no such program: no-such-program-here" in result.error.message


@pytest_twisted.ensureDeferred
async def test_a_task_that_a_reload_has_taken_away_is_rejected(engine: Engine) -> None:
    result = await engine.run("gone")
    assert result.error is not None
    assert result.error.kind == "rejected"


@pytest_twisted.ensureDeferred
async def test_a_program_knows_what_its_request_was_called(engine: Engine) -> None:
    """By two variables, of which only those are set that the request had; programs look there for a trace."""
    code = "import os; print([os.environ.get(n) for n in ('JOBSVC_REQUEST_ID', 'TRACEPARENT', 'MORE')])"
    engine.script("look", code, env={"MORE": "yes"})
    for no, origin in enumerate(((None, None), ("front-1", "00-ab"), (None, "00-ab")), 1):
        attempt = start("look", no, executor="command")
        attempt.origin = origin
        engine.worker.send([attempt])
        await engine.result(no)
    assert engine.items() == [
        "[None, None, 'yes']", "['front-1', '00-ab', 'yes']", "[None, '00-ab', 'yes']",
    ]  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_folder_environment_and_stdin(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> None:
    """It inherits the mark of this start and no secret, and finds nothing on stdin."""
    folder = tmp_path_factory.mktemp("folder")
    code = """
import os, sys
print(os.getcwd(), os.environ["MORE"], os.environ["JOBSVC_BOOT"], os.environ.get("JOBSVC_TOKEN"))
print(repr(sys.stdin.read()), os.getsid(0) == os.getpid(), sorted(map(int, os.listdir("/proc/self/fd")))[:-1])
"""
    engine.script("look", code, cwd=str(folder), env={"MORE": "yes"})
    result = await engine.run("look")
    assert result.error is None, result.error
    assert engine.items() == [f"{folder} yes {BOOT} None", "'' True [0, 1, 2]"]


@pytest_twisted.ensureDeferred
async def test_bytes_go_out_as_base64(engine: Engine) -> None:
    data = bytes(range(256)) * 1000
    engine.script("raw", "import sys; sys.stdout.buffer.write(bytes(range(256)) * 1000)", text=False)
    task = engine.run("raw")
    assert (await task).error is None
    assert b"".join(base64.b64decode(item) for item in engine.items()) == data


@pytest_twisted.ensureDeferred
async def test_a_line_above_the_limit_of_an_item_is_split(engine: Engine) -> None:
    engine.script("long", f"print('x' * {ITEM_MAX_BYTES + 5}); print('y', end='')")
    engine.worker.send([start("long", executor="command"), Credit(1, 1, "out", 0)])
    while not engine.of(Result):
        seen = len(engine.messages)
        await engine.until(lambda seen=seen: len(engine.messages) > seen)  # type: ignore[misc]
        engine.worker.send([Credit(1, 1, "out", ITEM_MAX_BYTES)])
    assert [len(item) for item in engine.items()] == [ITEM_MAX_BYTES, 5, 1]


@pytest_twisted.ensureDeferred
async def test_many_lines_all_arrive_before_the_result(engine: Engine) -> None:
    engine.script("many", "for n in range(20000): print(n)")
    for no in range(1, 6):
        engine.worker.send([start("many", no, executor="command")])
        await engine.result(no)
    assert engine.items() == [str(n) for n in range(20000)] * 5


@pytest_twisted.ensureDeferred
async def test_a_program_waits_when_its_output_is_not_taken(engine: Engine) -> None:
    engine.script("flood", "import sys\nwhile True: sys.stdout.write('y' * 999 + '\\n')")
    engine.worker.send([start("flood", executor="command")])

    def taken() -> int:
        return sum(len(items.body) for items in engine.of(Items))

    await engine.until(lambda: taken() > STREAM_WINDOW_BYTES)
    full = taken()
    await pause(0.2)
    assert taken() == full < STREAM_WINDOW_BYTES + 70_000
    engine.worker.send([Credit(1, 1, "out", 1000)])
    engine.worker.send([Credit(1, 1, "out", full)])
    await engine.until(lambda: taken() > full + STREAM_WINDOW_BYTES - 1000)
    assert engine.worker.kill(1, 1)
    assert (await engine.result()).error is not None


@pytest_twisted.ensureDeferred
async def test_a_cancel_ends_the_program_and_its_group(engine: Engine) -> None:
    engine.define("sleep", "sh", "-c", "sleep 600 & echo $! ; wait")
    engine.worker.send([start("sleep", executor="command")])
    (child,) = await engine.until(engine.items)
    engine.worker.send([Cancel(1, 1, "cancel_asked")])
    result = await engine.result()
    assert result.error is not None
    assert (result.error.kind, result.error.exit) == ("cancelled", Exit(signal=15, name="SIGTERM", oom=False))
    await gone(int(child))


@pytest_twisted.ensureDeferred
async def test_a_cancel_at_the_very_start(engine: Engine) -> None:
    """Before the launcher has made a session of its own."""
    engine.define("sleep", "sleep", "600")
    engine.worker.send([start("sleep", executor="command")])
    await engine.until(lambda: engine.of(Begin))
    engine.worker.send([Cancel(1, 1, "cancel_asked")])
    result = await engine.result()
    assert result.error is not None
    assert result.error.kind == "cancelled"


@pytest_twisted.ensureDeferred
async def test_a_program_that_ends_well_after_the_cancel_has_succeeded(engine: Engine) -> None:
    code = """
import signal, sys
def stop(*_):
    print("flushed"); sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
signal.pause()
"""
    engine.script("tidy", code)
    engine.worker.send([start("tidy", executor="command")])
    await engine.until(engine.items)
    engine.worker.send([Cancel(1, 1, "cancel_asked")])
    result = await engine.result()
    assert (result.error, result.body) == (None, b'{"code":0}')
    assert engine.items() == ["ready", "flushed"]


@pytest_twisted.ensureDeferred
async def test_a_kill_takes_what_ignores_sigterm_and_its_children(engine: Engine) -> None:
    code = """
import signal, subprocess
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(subprocess.Popen(["sleep", "600"], start_new_session=True).pid, flush=True)
signal.pause()
"""
    engine.script("stubborn", code)
    engine.worker.send([start("stubborn", executor="command")])
    (child,) = await engine.until(engine.items)
    engine.worker.send([Cancel(1, 1, "cancel_asked")])
    await pause(0.1)
    assert not engine.of(Result)
    assert not engine.worker.kill(1, 2)
    assert engine.worker.kill(1, 1)
    result = await engine.result()
    assert result.error is not None
    assert (result.error.kind, result.error.exit) == ("cancelled", Exit(signal=9, name="SIGKILL", oom=None))
    await gone(int(child))


@pytest_twisted.ensureDeferred
async def test_what_is_left_behind_in_the_group_is_ended(engine: Engine) -> None:
    engine.define("leave", "sh", "-c", "sleep 600 & echo $!")
    result = await engine.run("leave")
    assert result.error is None
    (child,) = engine.items()
    await gone(int(child))


@pytest_twisted.ensureDeferred
async def test_a_pipe_that_a_stranger_holds_does_not_hold_the_result(engine: Engine) -> None:
    code = """
import subprocess
print(subprocess.Popen(["sleep", "600"], start_new_session=True).pid)
"""
    engine.script("daemonise", code)
    result = await engine.run("daemonise")
    assert result.error is None
    (child,) = engine.items()
    assert alive(int(child)), "it has left group and session: later work of the guard"
    launcher().reactor.callLater(0, __import__("os").kill, int(child), 9)
    await pause(0.05)


@pytest_twisted.ensureDeferred
async def test_what_has_not_begun_is_given_back(engine: Engine) -> None:
    engine.define("true", "true")
    engine.worker.send([start("true", no, executor="command") for no in (1, 2, 3)])
    engine.worker.send([Cancel(2, 1, "cancel_asked")])
    assert engine.messages == [Returned([(2, 1)])]
    engine.worker.send([Recall()])
    assert engine.messages[1:] == [Returned([(1, 1), (3, 1)])]


def scarce(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """So many starts find no descriptor, process or memory."""
    real, reasons = posix.spawn, [errno.EMFILE, errno.EAGAIN, errno.ENOMEM][:times]

    def spawn(argv: Sequence[bytes], environment: Sequence[bytes], descriptors: Sequence[int]) -> int:
        if b"true" in argv and reasons:
            number = reasons.pop()
            raise OSError(number, os.strerror(number))
        return real(argv, environment, descriptors)

    monkeypatch.setattr(posix, "spawn", spawn)


@pytest_twisted.ensureDeferred
async def test_what_finds_no_room_for_a_process_waits_and_is_started_then(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "AGAIN_S", 0.001)
    scarce(monkeypatch, 3)
    engine.define("true", "true")
    assert (await engine.run("true")).error is None
    assert len(engine.of(Begin)) == len(engine.of(Result)) == 1


@pytest_twisted.ensureDeferred
async def test_what_waits_for_room_for_a_process_can_be_given_back(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    said: list[object] = []

    @implementer(ILogObserver)
    def see(event: dict[str, Any]) -> None:
        if event.get("action") == "start_waits":
            said.append(event["error"])
            engine.happened()

    monkeypatch.setattr(command, "AGAIN_S", 3600.0)
    globalLogPublisher.addObserver(see)
    request.addfinalizer(partial(globalLogPublisher.removeObserver, see))
    scarce(monkeypatch, 1)
    engine.define("true", "true")
    engine.worker.send([start("true", executor="command")])
    await engine.until(lambda: said)
    engine.worker.send([Cancel(1, 1, "cancel_asked")])
    assert engine.messages == [Returned([(1, 1)])]


@pytest_twisted.ensureDeferred
async def test_stop_kills_what_runs_and_says_so() -> None:
    engine = Engine()
    engine.worker.offer()
    engine.define("sleep", "sleep", "600")
    engine.worker.send([start("sleep", no, executor="command") for no in (1, 2)])
    await engine.until(lambda: len(engine.of(Begin)) == 2)
    await engine.worker.stop().addTimeout(30, reactor())
    assert [result.error.kind for result in engine.of(Result) if result.error] == ["cancelled", "cancelled"]
    assert engine.deaths == [Death("quit", None)]
    assert msgspec.json.encode(engine.worker.slots) == b'{"command":4}'

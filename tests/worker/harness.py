"""A real worker process at the other end of a real socketpair; the test plays the daemon. Every wait is bounded."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

import jobsvc
from jobsvc.model.frames import (
    Begin,
    Credit,
    Deframer,
    FromWorker,
    Hello,
    Items,
    Log,
    Manifest,
    Message,
    Quit,
    Result,
    Start,
    encode,
)
from jobsvc.model.marks import MARK

PACKAGE_DIR = Path(jobsvc.__file__).parents[1]
LAUNCH = PACKAGE_DIR / "jobsvc" / "worker" / "launch.py"
TASKS_DIR = Path(__file__).parent / "tasks"
WAIT_S = 20.0
"""No answer of a worker takes so long: the test fails."""

M = TypeVar("M", bound=Message)


class WorkerEnd(Exception):
    """The worker has closed its end of the channel."""


class WorkerHarness:
    """One worker.

    Args:
        kind: `cpu` or `io`.
        modules: task modules, found in `tests/worker/tasks` or `path`.
        credit: whether what the worker sends on its streams is given back at once, as a daemon with a fast store does.
    """

    def __init__(
        self,
        kind: str,
        modules: tuple[str, ...],
        *,
        path: Path = TASKS_DIR,
        threads: int = 4,
        credit: bool = True,
    ) -> None:
        self._credit = credit
        self._mark_fd = os.memfd_create("mark")
        os.ftruncate(self._mark_fd, MARK.size)
        self.sock, theirs = socket.socketpair()
        self.sock.settimeout(WAIT_S)
        config = {
            "kind": kind,
            "boot": "test-boot",
            "modules": modules,
            "path": [str(path)],
            "package_dir": str(PACKAGE_DIR),
            "channel": theirs.fileno(),
            "mark": self._mark_fd,
            "threads": threads,
        }
        words = [sys.executable, "-I", "-S", str(LAUNCH), "--parent", str(os.getpid())]
        words += ["--channel", str(theirs.fileno()), "--mark", str(self._mark_fd), "--"]
        words += [
            sys.executable,
            "-m",
            f"jobsvc.worker.{kind}",
            "--config",
            msgspec.json.encode(config).decode(),
        ]
        self.process = subprocess.Popen(
            words,
            cwd=PACKAGE_DIR,
            pass_fds=(theirs.fileno(), self._mark_fd),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        theirs.close()
        self._deframer = Deframer(FromWorker)
        self._unread: list[Message] = []
        self.seen: list[Message] = []
        """All that was read, in order."""
        self.next_no = 1

    # -- talking

    def send(self, *messages: Message) -> None:
        """One frame."""
        self.sock.sendall(encode(messages))

    def read(self) -> Message:
        """The next message; gives credit for it."""
        while not self._unread:
            with suppress(ConnectionResetError):
                data = self.sock.recv(1 << 20)
                if data:
                    self._unread = self._deframer.feed(data)
                    continue
            raise WorkerEnd
        message = self._unread.pop(0)
        self.seen.append(message)
        if self._credit and isinstance(message, (Items, Log)):
            self.give(message)
        return message

    def give(self, message: Items | Log) -> None:
        """Credit for what this message carried."""
        stream = message.stream if isinstance(message, Items) else "log"
        with suppress(BrokenPipeError):  # it may have gone meanwhile
            self.send(Credit(message.no, message.epoch, stream, len(message.body)))

    def until(self, kind: type[M], wanted: Callable[[M], bool] = lambda _: True) -> M:
        """Read on until such a message comes."""
        while True:
            message = self.read()
            if isinstance(message, kind) and wanted(message):
                return message

    # -- attempts

    def ready(self) -> Manifest:
        """Read up to the manifest."""
        hello = self.read()
        assert isinstance(hello, Hello)
        return self.until(Manifest)

    def start(self, task: str, *args: Any, executor: str = "process", **options: Any) -> Start:
        """The message that starts an attempt of a new job; not sent."""
        no = self.next_no
        self.next_no += 1
        body = options.pop("body", None) or msgspec.json.encode(args)
        return Start(no, 1, no.to_bytes(16, "big"), task, executor, 1, body=body, **options)

    def begun(self, start: Start) -> Begin:
        """Read up to its begin."""
        return self.until(Begin, lambda m: m.no == start.no)

    def result(self, start: Start) -> Result:
        """Read up to its result."""
        for message in self.seen:
            if isinstance(message, Result) and message.no == start.no:
                return message
        return self.until(Result, lambda m: m.no == start.no)

    def run(self, task: str, *args: Any, **options: Any) -> Result:
        """One attempt from start to result."""
        start = self.start(task, *args, **options)
        self.send(start)
        return self.result(start)

    def value(self, task: str, *args: Any, **options: Any) -> Any:
        """The result's value; fails the test when there is an error."""
        result = self.run(task, *args, **options)
        assert result.error is None, result.error
        return msgspec.json.decode(result.body)

    def logs(self, no: int) -> list[dict[str, Any]]:
        """The log events of a job among what was read."""
        bodies = [m.body for m in self.seen if isinstance(m, Log) and m.no == no]
        return [msgspec.json.decode(line) for body in bodies for line in body.split(b"\n")]

    def items(self, no: int, stream: str = "out") -> list[Any]:
        """The items of a job among what was read."""
        bodies = [m.body for m in self.seen if isinstance(m, Items) and m.no == no and m.stream == stream]
        return [msgspec.json.decode(line) for body in bodies for line in body.split(b"\n")]

    def mark(self) -> tuple[int, int, int, int]:
        """The begin mark: no, epoch, began_us, generation."""
        return MARK.unpack(os.pread(self._mark_fd, MARK.size, 0))

    # -- ends

    def end(self) -> tuple[int, str, str]:
        """Wait for its end by itself: status, what it printed to descriptor 1, and to 2."""
        out, err = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, out.decode(), err.decode()

    def quit(self) -> tuple[int, str, str]:
        """Tell it to, and wait."""
        self.send(Quit())
        return self.end()

    def close(self) -> None:
        """Leave nothing behind, whatever happened."""
        self.sock.close()
        os.close(self._mark_fd)
        self.process.kill()
        self.process.communicate(timeout=WAIT_S)

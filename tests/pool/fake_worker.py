"""A worker that does on the channel what the test asks: the task's name is the deed. Run as a script."""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import socket
import subprocess
import sys
import termios
import time
from itertools import count

import msgspec

from jobsvc.model.frames import (
    PROTO,
    Begin,
    Credit,
    Deframer,
    Hello,
    Items,
    Manifest,
    Message,
    Ping,
    Pong,
    Quit,
    Result,
    Start,
    ToWorker,
    encode,
)
from jobsvc.model.marks import MARK, seal_of

channel = socket.socket(fileno=3)
page = mmap.mmap(4, MARK.size)
begins = count(1)
BURST = 2_000


def send(*messages: Message) -> None:
    channel.sendall(encode(messages))


def burst_and_exit(start: Start) -> None:
    """All at once on every way out, and gone."""
    for n in range(BURST):
        send(Items(start.no, start.epoch, "out", 1, 0, str(n).encode()))
    os.write(1, b"printed\n" * BURST + b"no newline")
    os.write(2, b"complained\n")
    os._exit(7)


def have_children(start: Start) -> None:
    """A child, its child, and one that has left the session; their numbers go out as items."""
    script = (
        "import subprocess, sys; c = subprocess.Popen(['sleep', '600']); print(c.pid, flush=True); c.wait()"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    grandchild = int(child.stdout.readline())
    apart = subprocess.Popen(["sleep", "600"], start_new_session=True)
    send(Items(start.no, start.epoch, "out", 3, 0, f"{child.pid}\n{grandchild}\n{apart.pid}".encode()))


def flood(start: Start) -> None:
    """Print until stopped by a full pipe; tell how far it came when the pipe has been full for a while."""
    os.set_blocking(1, False)
    written, quiet = 0, 0
    while quiet < 20:
        try:
            written += os.write(1, b"y" * 999 + b"\n")
            quiet = 0
        except BlockingIOError:
            quiet += 1
            time.sleep(0.02)  # noqa: TID251 - a plain program
    os.set_blocking(1, True)
    send(Items(start.no, start.epoch, "out", 1, 0, str(written).encode()))


def seal(start: Start) -> None:
    """As a real worker does at the end of an attempt: tell in the pipe where its output ends, if any lies there, or the
    task has printed before.
    """  # fmt: skip
    for fd in (1, 2):
        if start.no > 1 or fcntl.ioctl(fd, termios.FIONREAD, bytes(4)) != bytes(4):
            os.write(fd, seal_of(start.no, start.epoch))


def do(start: Start) -> None:
    begun = next(begins)
    page[:] = MARK.pack(start.no, start.epoch, 5, begun)
    send(Begin(start.no, start.epoch, 5))
    if start.task == "burst_and_exit":
        burst_and_exit(start)
    elif start.task == "have_children":
        have_children(start)
    elif start.task == "flood":
        flood(start)
    elif start.task == "talk_nonsense":
        channel.sendall(b"\xff" * 100)
    elif start.task == "hang_up":
        channel.shutdown(socket.SHUT_RDWR)
    elif start.task == "hang":
        signal.pause()
    elif start.task == "be_killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif start.task in {"end_unheard", "end_and_exit"}:
        page[:] = MARK.pack(-start.no, start.epoch, 5, begun)
        if start.task == "end_and_exit":
            os._exit(1)
        signal.pause()  # as if something else stood in the place of the channel
    elif start.task == "print":
        os.write(1, b"native %d\nhalf %d" % (start.no, start.no))
        seal(start)
        page[:] = MARK.pack(-start.no, start.epoch, 5, begun)
        send(Result(start.no, start.epoch, 5, 0.0, None, 0, start.body))
    elif start.task == "echo":
        page[:] = MARK.pack(-start.no, start.epoch, 5, begun)
        send(Result(start.no, start.epoch, 5, 0.0, None, 0, start.body))


def main() -> None:
    config = msgspec.json.decode(sys.argv[sys.argv.index("--config") + 1])
    pid = 2 if config["modules"] == ["elsewhere"] else os.getpid()
    send(Hello(PROTO + (config["modules"] == ["other_version"]), pid, config["boot"]))
    if config["modules"] != ["silent"]:
        broken = config["modules"] == ["broken"]
        send(Manifest([], {}, {"broken": "no such module"} if broken else {}))
    deframer = Deframer(ToWorker)
    while data := channel.recv(65536):
        for message in deframer.feed(data):
            if isinstance(message, Start):
                do(message)
            elif isinstance(message, Ping):
                send(Pong(message.n))
            elif isinstance(message, Credit):
                send(Items(message.no, message.epoch, "credit", 1, 0, str(message.bytes).encode()))
            elif isinstance(message, Quit) and config["modules"] != ["stubborn"]:
                return
    signal.pause()


main()

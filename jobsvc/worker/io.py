"""The main of the io worker: Twisted on the asyncio reactor, with the executors `loop` and `thread`.

F2, started with `python -m jobsvc.worker.io`. Task code may use asyncio, Twisted and threads side by side; nothing in
here may block the loop.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from threading import Event
from time import time_ns
from typing import cast

from twisted.internet import asyncioreactor
from twisted.internet.interfaces import IReactorCore

from jobsvc.model.frames import (
    Begin,
    Cancel,
    Credit,
    Loading,
    Message,
    Ping,
    Pong,
    Quit,
    Recall,
    Returned,
    Start,
)
from jobsvc.worker.attempt import Port
from jobsvc.worker.boot import hello, load_code, read_config
from jobsvc.worker.capture import capture, uncapture
from jobsvc.worker.channel import Channel
from jobsvc.worker.driver import task_factory
from jobsvc.worker.link import take_over
from jobsvc.worker.logs import observe_logs
from jobsvc.worker.loop import LoopExecutor, LoopPort
from jobsvc.worker.mark import Mark
from jobsvc.worker.memory import rss_bytes
from jobsvc.worker.running import Code
from jobsvc.worker.threads import ThreadExecutor, ThreadPort

Key = tuple[int, int]


class IoWorker:
    """Turns messages into attempts, and their ends into messages. Runs on the loop, where nothing else is said.

    Args:
        channel: to the daemon.
        threads: of the executor `thread`, at most.
        codes: by name of the task.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, channel: Channel, threads: int, codes: Mapping[str, Code]
    ) -> None:
        self._loop = loop
        self._channel = channel
        self._outbox = channel.outbox
        self._ports: dict[Key, Port] = {}  # all that was handed to an executor and has not ended
        self._fresh: dict[Key, Port] = {}  # from the batch in hand, not begun
        self._quitting = False
        self._on_loop = LoopExecutor(loop, codes, self._ended)
        self._on_threads = ThreadExecutor(codes, threads, self._begin_on_thread, self._ended_on_thread)

    def messages(self, messages: Sequence[Message]) -> None:
        """A batch from the daemon."""
        for message in messages:
            self._take(message)
        if self._fresh:
            self._start_fresh()

    def _take(self, message: Message) -> None:
        if isinstance(message, Start):
            port = (
                LoopPort(message, self._outbox, self._channel.drain)
                if message.executor == "loop"
                else ThreadPort(message, self._outbox, self._loop)
            )
            self._fresh[message.no, message.epoch] = port
        elif isinstance(message, Credit):
            if (port_ := self._ports.get((message.no, message.epoch))) is not None:
                port_.add_credit(message.stream, message.bytes)
        elif isinstance(message, Cancel):
            self._cancel((message.no, message.epoch), message.reason)
        elif isinstance(message, Recall):
            self._give_back()
        elif isinstance(message, Ping):
            self._outbox.post(Pong(message.n, rss_bytes()))
        elif isinstance(message, Quit):
            self._quitting = True
            self._give_back()
            self._leave_if_done()

    # -- starts

    def _start_fresh(self) -> None:
        """Announce what begins, then let it begin: whatever it does to the process, the daemon knows that it ran.

        For quick attempts alone that is not worth a system call of its own: their begin goes with their result.
        """
        fresh, self._fresh = self._fresh, {}
        free = self._on_threads.free()
        for port in fresh.values():
            if isinstance(port, LoopPort):
                self._begin(port)
            elif free > 0:
                free -= 1
                self._begin(port)
        self._ports.update(fresh)
        if not all(port.start.quick for port in fresh.values()):
            self._channel.drain()
        for port in fresh.values():
            if isinstance(port, LoopPort):
                self._on_loop.start(port)
            else:
                self._on_threads.start(port)

    def _begin_on_thread(self, port: Port) -> None:
        """It had to wait for the thread, on which this runs; here too its word leaves before its code runs."""
        self._begin(port)
        if not port.start.quick:
            sent = Event()
            self._loop.call_soon_threadsafe(self._send_now, sent)
            sent.wait()

    def _send_now(self, sent: Event) -> None:
        self._channel.drain()
        sent.set()

    def _begin(self, port: Port) -> None:
        """Runs on any thread."""
        port.begin(time_ns() // 1000)
        self._outbox.post(Begin(port.no, port.epoch, port.began_us))

    # -- stops

    def _cancel(self, key: Key, reason: str) -> None:
        if self._fresh.pop(key, None) is not None:
            self._outbox.post(Returned([key]))
            return
        port = self._ports.get(key)
        if port is None:
            return  # it has just ended
        if isinstance(port, LoopPort):
            port.cancel(reason)
            self._on_loop.cancel(port)
        elif self._on_threads.withdraw(port):
            del self._ports[key]
            self._outbox.post(Returned([key]))
        else:
            port.cancel(reason)

    def _give_back(self) -> None:
        """Return all that has not begun."""
        keys = [
            key for key, port in self._ports.items() if not port.began_us and self._on_threads.withdraw(port)
        ]
        for key in keys:
            del self._ports[key]
        self._outbox.post(Returned([*keys, *self._fresh]))
        self._fresh.clear()

    # -- ends

    def _ended(self, port: Port) -> None:
        del self._ports[port.no, port.epoch]
        self._leave_if_done()

    def _ended_on_thread(self, port: Port) -> None:
        """Runs on the attempt's thread."""
        self._loop.call_soon_threadsafe(self._ended, port)

    def _leave_if_done(self) -> None:
        if self._quitting and not self._ports:
            self._channel.close()

    def lost(self) -> None:
        """The channel is closed: by us at the end, or the daemon is gone and nobody wants what runs here."""
        if not self._quitting:
            os._exit(1)
        _reactor().stop()


def _reactor() -> IReactorCore:
    """The one that `main` has installed."""
    from twisted.internet import reactor

    return cast("IReactorCore", reactor)


def _default_signals() -> None:
    """A signal ends the worker as a signal does; the reactor would make a clean exit of it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def main() -> None:
    """Serve the daemon named by the command line until it says quit or is gone."""
    config = read_config(sys.argv[1:])
    loop = asyncio.new_event_loop()
    # Without this, asyncio code that asks for the loop before it runs gets another one and hangs silently.
    asyncio.set_event_loop(loop)
    loop.set_task_factory(task_factory(Mark(config.mark)))
    asyncioreactor.install(loop)
    sock = socket.socket(fileno=take_over(config.channel))
    channel = Channel(loop)
    channel.outbox.post(hello(config))
    loop.run_until_complete(loop.create_unix_connection(lambda: channel, sock=sock))
    channel_fd = sock.fileno()
    capture()
    observe_logs()

    def announce(module: str) -> None:
        channel.outbox.post(Loading(module))
        channel.drain()

    codes, manifest = load_code(config, announce)
    worker = IoWorker(loop, channel, config.threads, codes)
    channel.on_messages, channel.on_lost = worker.messages, worker.lost
    channel.outbox.post(manifest)
    os.register_at_fork(after_in_child=partial(_forsake, [channel_fd]))
    reactor = _reactor()
    reactor.callWhenRunning(_default_signals)
    reactor.run()


def _forsake(channel_fds: list[int]) -> None:
    """In a child that a task's code has forked: it is no worker, and what it prints goes to the pipes."""
    uncapture()
    while channel_fds:  # once: when it forks in its turn, the number is another's
        os.close(channel_fds.pop())


if __name__ == "__main__":
    main()

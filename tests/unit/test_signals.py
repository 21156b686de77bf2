"""Signals before, and once the reactor runs: kept, handed over, never the end by chance (F65)."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from jobsvc.runtime.signals import HELD, Signals


class Kernel:
    """Handlers, and a reactor's queue."""

    def __init__(self) -> None:
        self.handlers: dict[int, Callable[[int, Any], None]] = {}
        self.queue: list[Callable[[], None]] = []

    def set_handler(self, number: int, handler: Callable[[int, Any], None]) -> None:
        self.handlers[number] = handler

    def send(self, number: int) -> None:
        self.handlers[number](number, None)

    def call_from_thread(self, call: Callable[[], None]) -> None:
        self.queue.append(call)

    def turn(self) -> None:
        queue, self.queue = self.queue, []
        for call in queue:
            call()


def test_a_signal_after_the_stop_is_no_end() -> None:
    """F65: an operator who says it once more while the interpreter ends does not make a clean stop look killed."""
    program = """
import os, signal, sys
from jobsvc.runtime.ending import Ending

class Reactor:
    _exitSignal = signal.SIGTERM
    def addSystemEventTrigger(self, phase, event, call):
        self.call = call

class Late:
    def __del__(self, kill=os.kill, pid=os.getpid(), number=signal.SIGTERM):
        kill(pid, number)  # the interpreter has given the signals back by now

signal.signal(signal.SIGTERM, lambda *_: None)
reactor = Reactor()
Ending(reactor).with_status(0)
reactor.call()
assert reactor._exitSignal is None
sys.modules["late"] = Late()
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_what_comes_before_the_reactor_is_kept() -> None:
    """Each kind once, in order; the handlers run on the reactor, not where the signal struck."""
    kernel = Kernel()
    signals = Signals(set_handler=kernel.set_handler)
    assert set(kernel.handlers) == set(HELD)
    assert signal.SIGPIPE not in kernel.handlers
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
        kernel.send(number)
    called: list[str] = []
    signals.deliver(
        {signal.SIGHUP: lambda: called.append("hup"), signal.SIGTERM: lambda: called.append("term")},
        kernel.call_from_thread,
    )
    assert called == []
    kernel.turn()
    assert called == ["hup", "term"]
    kernel.send(signal.SIGHUP)
    kernel.send(signal.SIGHUP)
    kernel.send(signal.SIGUSR2)  # nobody's: ignored
    kernel.turn()
    assert called == ["hup", "term", "hup", "hup"]

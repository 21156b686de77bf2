"""F3: a picture of the daemon for whoever looks into trouble: all threads with their stacks, and figures of all rooms.

No value of any variable is in it: stacks show the lines of the source, timers the names of functions.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from jobsvc.logs.text import escaped
from jobsvc.model.clock import time_text

KEPT: Final = 10
"""Dumps in a data directory; the oldest go."""
TIMERS_MAX: Final = 20_000
"""Delayed calls that are looked at: on the reactor, so within some milliseconds."""
GROUPS_MAX: Final = 40
"""Kinds of timers that are named, most frequent first."""
PATTERN: Final = "dump-*.txt"


def timers(calls: Iterable[Any]) -> Mapping[str, int]:
    """How many delayed calls there are of each function. Runs on: the reactor."""
    found: Counter[str] = Counter()
    for number, call in enumerate(calls):
        if number == TIMERS_MAX:
            found["(more that were not looked at)"] += 1
            break
        found[_name(call.func)] += 1
    return dict(found.most_common(GROUPS_MAX))


def _name(function: Any) -> str:
    inner = getattr(function, "func", getattr(function, "f", function))  # of a partial, of a LoopingCall
    owner = getattr(getattr(inner, "__self__", None), "__class__", None)
    name = getattr(inner, "__qualname__", type(inner).__qualname__)
    module = getattr(inner, "__module__", None) or getattr(owner, "__module__", "?")
    return f"{module}.{name}"


def text(figures: Mapping[str, Any], at_us: int) -> str:
    """The dump. Runs on: any thread; the figures were taken on the reactor.

    Args:
        figures: by room; a mapping or a list is shown one entry a line.
    """
    lines = [f"jobsvc dump {time_text(at_us)} pid {os.getpid()} python {sys.version.split()[0]}"]
    for room, found in {**figures, "memory": memory()}.items():
        lines += ["", f"== {room}"]
        if isinstance(found, Mapping):
            lines += [f"{escaped(str(name))}: {escaped(str(value))}" for name, value in found.items()]
        elif isinstance(found, (list, tuple)):
            lines += [escaped(str(entry)) for entry in found]
        else:
            lines.append(escaped(str(found)))
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames()  # noqa: SLF001 - its public name
    lines += ["", f"== threads ({len(frames)})"]
    for ident, frame in frames.items():
        lines.append(f"-- {escaped(names.get(ident, 'not of Python'))}")
        for entry in traceback.format_stack(frame):
            lines += entry.rstrip().splitlines()
    return "\n".join(lines) + "\n"


def memory() -> dict[str, str]:
    """What the kernel says of this process."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError as error:
        return {"unknown": str(error)}
    wanted = ("VmPeak", "VmHWM", "VmRSS", "VmSwap", "Threads", "FDSize")
    found = (line.partition(":") for line in status.splitlines())
    memory = {name: " ".join(value.split()) for name, _, value in found if name in wanted}
    try:
        memory["open descriptors"] = str(len(os.listdir("/proc/self/fd")))  # noqa: PTH208 - only their number
    except OSError as error:
        memory["open descriptors"] = str(error)
    return memory


def write(folder: Path, content: str, at_us: int) -> Path:
    """A new file for the owner's eyes; the oldest beyond `KEPT` go. Runs on: a thread. Raises OSError."""
    path = folder / f"dump-{time_text(at_us).replace(':', '').replace('.', '-')}.txt"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", errors="backslashreplace") as file:
        file.write(content)
    for old in sorted(folder.glob(PATTERN))[:-KEPT]:
        old.unlink(missing_ok=True)
    return path

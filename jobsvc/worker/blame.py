"""How the end of an attempt by an exception becomes a `JobError`: its kind, its words, its traceback as text.

F2, free of Twisted. It must not decide what follows from it: the engine does.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from jobsvc.model.errors import Exit, JobError
from jobsvc.model.limits import MESSAGE_MAX_CHARS, TRACEBACK_MAX_CHARS
from jobsvc.worker.redaction import Veil

_PACKAGE_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - pathlib costs 1 MB here
_OWN_FOLDERS = tuple(os.path.join(_PACKAGE_FOLDER, name, "") for name in ("worker", "authoring"))  # noqa: PTH118 - the same
"""Frames of files in here are ours, not the author's; they are left out of tracebacks."""


TYPE_MAX_CHARS = 1_024
"""Of the name of an exception's class: made-up classes can have any, and every reply with the job shows it."""
USED_UP = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM))


class Exited(BaseException):
    """A task running among others asked the whole process to exit; only its own attempt ends by that."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the task called exit({status})")
        self.status = status


class TooLarge(Exception):
    """A result or an item is over its limit."""

    def __init__(self, what: str, size_bytes: int, max_bytes: int) -> None:
        super().__init__(f"{what} has {size_bytes:,} bytes as JSON; at most {max_bytes:,} are allowed")


def exit_status(error: SystemExit) -> int:
    """The exit status that Python would end with."""
    if error.code is None:
        return 0
    return error.code & 0xFF if isinstance(error.code, int) else 1


def type_name(error: BaseException) -> str:
    """Qualified name of its class, without `builtins.`, cut."""
    cls = type(error)
    name = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    return _encodable(name[:TYPE_MAX_CHARS])


def _encodable(text: str) -> str:
    """What goes to the daemon must be encodable, whatever an author put in."""
    return text.encode("utf-8", "backslashreplace").decode()


def words_of(error: BaseException, veil: Veil | None = None) -> str:
    """Its message, cut; an exception that cannot be printed does not make another one."""
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - any author's __str__
        return f"<{type_name(error)} without printable message>"
    if veil is not None:
        text = veil.text(text)  # before it is cut: half a secret would not be found
    return _encodable(text[:MESSAGE_MAX_CHARS])


def traceback_text(error: BaseException, veil: Veil | None = None) -> str | None:
    """The traceback without this package's frames; the end of it when it is too long. None when memory is short."""
    try:
        import traceback  # most workers never need it, and it costs 1 MB

        found = traceback.TracebackException.from_exception(error, compact=True)
        _strip(found, set())
        text = "".join(found.format())
    except BaseException:  # noqa: BLE001 - an author's __str__, source files that changed, no memory: the error itself counts
        return None
    if veil is not None:
        text = veil.text(text)
    text = _encodable(text)
    return text if len(text) <= TRACEBACK_MAX_CHARS else "…" + text[1 - TRACEBACK_MAX_CHARS :]


def _strip(found: object, seen: set[int]) -> None:
    """Remove our frames from a TracebackException and from those it was raised from."""
    if found is None or id(found) in seen:
        return
    seen.add(id(found))
    stack = getattr(found, "stack", None)
    if stack is not None:
        stack[:] = [frame for frame in stack if not frame.filename.startswith(_OWN_FOLDERS)]
    for name in ("__cause__", "__context__"):
        _strip(getattr(found, name, None), seen)
    for inner in getattr(found, "exceptions", None) or ():
        _strip(inner, seen)


def let_go(error: BaseException) -> None:
    """Drop what the frames that it came through still hold, if it tells that memory or descriptors are used up: to
    report it takes some of either.
    """  # fmt: skip
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in USED_UP):
        step = error.__traceback__
        while step is not None:
            with suppress(RuntimeError):  # it still runs: ours
                step.tb_frame.clear()
            step = step.tb_next


def task_error(error: BaseException, veil: Veil | None = None) -> JobError:
    """The task's own code raised this."""
    let_go(error)
    if isinstance(error, (SystemExit, Exited)):
        status = error.status if isinstance(error, Exited) else exit_status(error)
        return JobError("crashed", "SystemExit", f"the task called exit({status})", exit=Exit(code=status))
    return JobError(
        "task_error", type_name(error), words_of(error, veil), traceback=traceback_text(error, veil)
    )

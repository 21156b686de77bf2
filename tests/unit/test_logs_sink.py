"""Where lines go: off the reactor, never lost without being counted, into a file that can be moved away."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.application.service import Application
from twisted.logger import FilteringLogObserver, ILogObserver, LogBeginner, Logger, LogLevel, LogPublisher

from jobsvc.logs.flood import ALIKE_MAX, PLACES_MAX, WINDOW_S, Flood
from jobsvc.logs.lines import json_line
from jobsvc.logs.sink import WAITING_MAX_BYTES, Sink
from jobsvc.logs.takeover import Bridge, Log, bridge_logging, take_over
from jobsvc.runtime.context import REQUEST_ID
from tests.conftest import FlushFailures

DEADLINE_S = 30.0


def lines_of(path: Path) -> list[str]:
    """What is in the file."""
    return path.read_text().splitlines()


def test_lines_come_in_order_before_during_and_after_the_thread(tmp_path: Path) -> None:
    """At once, by the thread, at once again."""
    path = tmp_path / "x.log"
    sink = Sink(path=path)
    sink.write("one", "info")
    assert lines_of(path) == ["one"]
    sink.begin()
    for n in range(1_000):
        sink.write(f"n {n}", "info")
    assert sink.flush()
    assert lines_of(path) == ["one", *(f"n {n}" for n in range(1_000))]
    sink.write("last", "info")
    sink.end()
    sink.write("after", "info")
    assert lines_of(path)[-2:] == ["last", "after"]
    assert (sink.written, sink.dropped, path.stat().st_mode & 0o777) == (1_003, 0, 0o640 & ~_umask())


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def test_reopened_after_a_rotation(tmp_path: Path) -> None:
    """What was said before is in the file that was moved away, what comes after in a new one."""
    path = tmp_path / "x.log"
    sink = Sink(path=path)
    sink.write("before", "info")
    path.rename(tmp_path / "x.log.1")
    sink.write("still", "info")
    sink.reopen()
    sink.write("after", "info")
    sink.begin()
    sink.reopen()
    sink.write("on", "info")
    sink.end()
    assert (lines_of(tmp_path / "x.log.1"), lines_of(path)) == (["before", "still"], ["after", "on"])


@pytest.mark.parametrize("how", ["moved", "removed", "replaced"])
def test_a_rotation_is_followed_without_a_signal(tmp_path: Path, how: str) -> None:
    """Moved away, removed, or another file put there: the next line is in the file of that name."""
    path = tmp_path / "x.log"
    sink = Sink(path=path)
    sink.begin()
    sink.write("before", "info")
    assert sink.flush()
    if how == "removed":
        path.unlink()
    else:
        path.rename(tmp_path / "x.log.1")
    if how == "replaced":
        path.write_text("")
    sink.write("after", "info")
    assert sink.flush()
    sink.write("on", "info")
    sink.end()
    assert lines_of(path) == ["after", "on"]


def test_a_file_that_cannot_be_reopened_goes_on(tmp_path: Path) -> None:
    """The folder is gone: an error, and the old file."""
    folder = tmp_path / "logs"
    folder.mkdir()
    sink = Sink(path=folder / "x.log")
    folder.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError):
        sink.reopen()
    sink.write("on", "info")
    sink.begin()
    sink.write("and on", "info")
    sink.end()
    assert lines_of(tmp_path / "moved" / "x.log") == ["on", "and on"]


def test_a_reader_that_stops_reading_holds_nobody_up() -> None:
    """A full pipe: writers go on, what is too much is dropped and counted; what was kept comes out in order."""
    read, write = os.pipe()
    sink = Sink(write)
    sink.begin()
    line = "x" * 65_535
    many = WAITING_MAX_BYTES // 65_536 * 2
    for _ in range(many):
        sink.write(line, "info")
    assert sink.dropped > 0
    kept = many - sink.dropped
    got = bytearray()
    while len(got) < kept * 65_536:
        got += os.read(read, 1 << 20)
    assert sink.flush()
    sink.end()
    assert (len(got), sink.written) == (kept * 65_536, kept)
    os.close(read)
    os.close(write)


def test_a_reader_that_is_gone_is_no_error() -> None:
    """The terminal was closed, the pipe broken: counted."""
    read, write = os.pipe()
    os.close(read)
    sink = Sink(write)
    sink.write("lost", "info")
    sink.begin()
    sink.write("lost too", "info")
    assert sink.flush()
    sink.end()
    assert (sink.written, sink.dropped) == (0, 2)
    os.close(write)


def test_a_flood_is_held_back(tmp_path: Path) -> None:
    """What one place warns of again and again is cut off, and told in its next window; others and infos pass."""
    now_s = [0.0]
    log = Log(Sink(path=tmp_path / "x.log"), json_line, "info", Flood(lambda: now_s[0]))
    logger = Logger(namespace="a", observer=log)
    for n in range(ALIKE_MAX + 50):
        logger.warn("refused {n}", n=n)
    logger.warn("something else")
    for n in range(ALIKE_MAX + 50):
        logger.info("told {n}", n=n)
    assert len(lines_of(tmp_path / "x.log")) == ALIKE_MAX + 1 + ALIKE_MAX + 50
    assert log.dropped == 50
    now_s[0] += WINDOW_S
    logger.warn("refused {n}", n=-1)
    assert read_json(tmp_path / "x.log")[-1]["fields"] == {"n": -1, "held_back_before": 50}
    for n in range(PLACES_MAX * 2):
        log({"log_namespace": "a", "log_format": f"place {n}", "log_level": LogLevel.warn})
    assert len(log._flood._places) <= PLACES_MAX


def test_the_journal_is_told_the_level(tmp_path: Path) -> None:
    """Where systemd says that stdout is its journal, each line has its priority, those of a traceback too."""
    file = tmp_path / "stream"
    with file.open("w") as stream:
        status = os.fstat(stream.fileno())
        journal = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        Sink(stream.fileno(), environ=journal).write("it failed\n    | why", "error")
        Sink(stream.fileno(), environ={"JOURNAL_STREAM": "1:2"}).write("plain", "warn")
        Sink(stream.fileno(), environ={}).write("plain", "warn")
    assert lines_of(file) == ["<3>it failed", "<3>    | why", "plain", "plain"]


# -- taking over


@pytest.fixture
def publisher() -> Iterator[LogPublisher]:
    """A log of its own; the standard library's logging is put back afterwards."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield LogPublisher()
    root.setLevel(level)
    root.handlers[:] = handlers


def read_json(path: Path) -> list[dict[str, Any]]:
    """Every line."""
    return [json.loads(line) for line in lines_of(path)]


def test_twistd_is_given_our_observer(tmp_path: Path, publisher: LogPublisher) -> None:
    """With --logfile: the file is ours, JSON, and takes what came before and after the fork."""
    path = tmp_path / "t.log"
    log = take_over({"logfile": str(path), "nodaemon": False, "syslog": False, "logger": None})
    assert log is not None
    application = Application("x")
    application.setComponent(ILogObserver, log)
    assert application.getComponent(ILogObserver) is log
    publisher.addObserver(log)
    Logger(namespace="a", observer=publisher).info("hello {n}", n=1)
    log.begin()
    Logger(namespace="a", observer=publisher).debug("not asked for")
    assert log.reopen() == str(path)
    log.end()
    assert [line["message"] for line in read_json(path)] == ["hello 1"]
    assert log.counts == {"info": 1}


def test_the_operators_own_logger_stays(publisher: LogPublisher) -> None:
    """`twistd --logger`: nothing of ours."""
    assert take_over({"logfile": None, "nodaemon": True, "logger": "their.factory"}) is None


def test_background_without_a_file() -> None:
    """Where twistd would refuse stdout, in the background, so do we."""
    with pytest.raises(SystemExit, match="needs -n"):
        take_over({"logfile": "-", "nodaemon": False, "logger": None})


def test_twist_is_given_our_observer(tmp_path: Path, publisher: LogPublisher) -> None:
    """Its options name the factory and the level: both are ours."""
    path = tmp_path / "t.log"
    with path.open("a") as stream:
        options = {"logFile": stream, "fileLogObserverFactory": None, "logLevel": LogLevel.info}
        log = take_over(options, "human", "debug")
        assert log is not None
        observer = options["fileLogObserverFactory"](stream)
        publisher.addObserver(FilteringLogObserver(observer, []))
        Logger(namespace="a", observer=publisher).debug("hello {n}", n=1)
    assert options["logLevel"] is LogLevel.debug
    assert lines_of(path)[0].endswith("DEBUG a: hello 1")
    assert log.reopen() == str(path)
    assert isinstance(log.lines, Sink)
    os.close(log.lines.descriptor)


@pytest.mark.parametrize("asked", ["warn", "debug", "error"])
def test_what_was_said_to_twist_counts(tmp_path: Path, publisher: LogPublisher, asked: str) -> None:
    """Its own --log-level and --log-format, where ours are not given."""
    with (tmp_path / "t.log").open("a") as stream:
        log = take_over({"logFile": stream, "logLevel": LogLevel.levelWithName(asked), "logFormat": "text"})
    assert log is not None
    assert log.level == asked
    Logger(namespace="a", observer=log).error("hello")
    assert lines_of(tmp_path / "t.log")[0].endswith("ERROR a: hello")
    assert isinstance(log.lines, Sink)
    os.close(log.lines.descriptor)


def test_syslog_is_told_the_priority(publisher: LogPublisher, monkeypatch: pytest.MonkeyPatch) -> None:
    """`twistd --syslog`: the same lines, each with its priority."""
    told: list[tuple[int, str]] = []
    monkeypatch.setattr("syslog.openlog", lambda *_: None)
    monkeypatch.setattr("syslog.syslog", lambda priority, line: told.append((priority, line)))
    log = take_over({"logfile": None, "nodaemon": False, "syslog": True, "prefix": "x", "logger": None})
    assert log is not None
    logger = Logger(namespace="a", observer=log)
    logger.error("hello\n")
    logger.info("fine")
    assert [(priority, json.loads(line)["message"]) for priority, line in told] == [
        (3, "hello\n"),
        (6, "fine"),
    ]
    log.begin()
    log.end()
    assert (log.reopen(), log.dropped) == (None, 0)


def test_an_observer_that_fails_loses_no_line(tmp_path: Path) -> None:
    """Whatever goes wrong in making the line: one line says so."""

    def broken(event: Any) -> str:
        raise ZeroDivisionError

    log = Log(Sink(path=tmp_path / "x.log"), broken, "info")
    log({"log_namespace": "a", "log_level": LogLevel.error})
    assert lines_of(tmp_path / "x.log") == ["an event of 'a' cannot be shown: ZeroDivisionError"]


@pytest.mark.parametrize(("level", "least"), [("debug", 0), ("info", 1), ("warn", 2), ("error", 3)])
def test_levels(tmp_path: Path, level: Any, least: int) -> None:
    """Events below the level asked for are left out."""
    log = Log(Sink(path=tmp_path / "x.log"), json_line, level)
    for name in ("debug", "info", "warn", "error", "critical"):
        Logger(namespace="a", observer=log).emit(LogLevel.levelWithName(name), name)
    assert [line["level"] for line in read_json(tmp_path / "x.log")] == [
        "debug", "info", "warn", "error", "critical",
    ][least:]  # fmt: skip


def test_the_standard_librarys_logging_is_bridged(
    publisher: LogPublisher, flush_failures: FlushFailures
) -> None:
    """With level, origin, traceback; wrong arguments of a library do not lose the line; once, however often asked."""
    import twisted.logger

    seen: list[dict[str, Any]] = []
    observer = cast("ILogObserver", seen.append)
    twisted.logger.globalLogPublisher.addObserver(observer)
    try:
        bridge_logging("warn")
        bridge_logging("warn")
        library = logging.getLogger("a.library")
        library.info("not this")
        library.warning("careful: %s {x}", "curly")
        record = logging.LogRecord("a.library", logging.ERROR, "x", 1, "%d", ("no number",), None)
        Bridge().handle(record)
        try:
            os.environ[" GONE"]
        except KeyError:
            library.exception("it failed")
    finally:
        twisted.logger.globalLogPublisher.removeObserver(observer)
    assert len(flush_failures(KeyError)) == 1
    lines = [json.loads(json_line(event)) for event in seen]
    assert [(line["level"], line["logger"], line["message"]) for line in lines] == [
        ("warn", "a.library", "careful: curly {x}"),
        ("error", "a.library", "%d"),
        ("error", "a.library", "it failed"),
    ]
    assert "KeyError: ' GONE'" in lines[2]["traceback"].splitlines()[-1]
    assert sum(isinstance(handler, Bridge) for handler in logging.getLogger().handlers) == 1


def test_warnings_are_lines(tmp_path: Path, publisher: LogPublisher) -> None:
    """What Python warns of comes as an event, on one line."""
    log = Log(Sink(path=tmp_path / "x.log"), json_line, "info")

    class Streams:
        stdout = stderr = None

    beginner = LogBeginner(publisher, sys.stderr, Streams, warnings)
    shown = warnings.showwarning
    try:
        with warnings.catch_warnings():
            beginner.beginLoggingTo([log], redirectStandardIO=False)
            warnings.simplefilter("always")
            warnings.warn("old\nthing", DeprecationWarning, stacklevel=1)
    finally:
        warnings.showwarning = shown
    (line,) = [line for line in read_json(tmp_path / "x.log") if "old" in line["message"]]
    assert line["level"] == "warn"
    assert "DeprecationWarning" in line["message"]


def test_threads_log_under_their_own_ids(tmp_path: Path) -> None:
    """Each line has the ids of its context, and the name of its thread."""
    log = Log(Sink(path=tmp_path / "x.log"), json_line, "info")
    logger = Logger(namespace="a", observer=log)

    def work(name: str) -> None:
        REQUEST_ID.set(name)
        for _ in range(100):
            logger.info("at work for {name}", name=name)

    threads = [threading.Thread(target=work, args=(f"r{n}",), name=f"t{n}") for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    lines = read_json(tmp_path / "x.log")
    assert len(lines) == 400
    assert all(line["request_id"] == line["fields"]["name"] for line in lines)
    assert {(line["thread"], line["request_id"]) for line in lines} == {(f"t{n}", f"r{n}") for n in range(4)}

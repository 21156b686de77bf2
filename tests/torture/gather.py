"""The end of a run: wait until nothing is left to do, read everything twice, stop the daemon, look at its remains."""

from __future__ import annotations

import json
import mmap
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw

from tests.torture.evidence import AttemptRow, Evidence, Hygiene, Row, StateEvent, attempt_of, row_of
from tests.torture.kinds import SECRET, JobSpec
from tests.torture.processes import descriptors_of, zombies_of
from tests.torture.records import Deed, Effect, History, Line, operations, read_lines
from tests.torture.sut import Sut
from tests.torture.wire import BROKEN, TOLD, Wire, digest_of

UNFINISHED: Final = "scheduled,blocked,held,queued,retrying,running,stopping"
LOOK_S: Final = 0.1
PAGE: Final = 500
READERS: Final = 4
STEADY_LOOKS: Final = 10
"""A zombie that is there in so many looks in a row is one that nobody reaps."""
FILES: Final = frozenset(
    (
        "token",
        "lock",
        "endpoint.json",
        "jobsvc.db",
        "jobsvc.db-wal",
        "jobsvc.db-shm",
        "backup",
        "clean",
        "audit.log",
        "secret-keys",
    )
)
"""What a data directory may hold."""

T = TypeVar("T")


class _Page(msgspec.Struct):
    jobs: list[Raw]
    next: str | None


def quiet(
    sut: Sut,
    history: History,
    wait_s: float,
    busy: Callable[[], object] = lambda: False,
    enough: Callable[[], object] = lambda: False,
) -> bool:
    """Wait until no job is left to do. False when there still are some at the end of the time.

    `busy`: whether clients still have something to do to jobs; `enough`: whether to wait no longer.
    """
    wire = Wire(sut, history, -1)
    nobody = threading.Event()
    give_up_at = monotonic() + wait_s
    try:
        while monotonic() < give_up_at and not enough():
            if busy():
                nobody.wait(LOOK_S)
                continue
            try:
                _, _, data = wire.raw("GET", f"/v1/jobs?state={UNFINISHED}&limit=1")
                if not json.loads(data)["jobs"]:
                    return True
            except BROKEN:
                wire.close()
            nobody.wait(LOOK_S)
        return False
    finally:
        wire.close()


def gather(
    sut: Sut, history_file: Path, history: History, specs: Sequence[JobSpec], deeds: Sequence[Deed]
) -> Evidence:
    """Read everything from the daemon, stop it, and put all together."""
    if sut.address(0) is None:  # it could not be started again: what was promised cannot be read
        return _put_together(sut, history_file, history, specs, deeds, Hygiene(), {})
    wire = Wire(sut, history, -1)
    rows, again = _listing(sut, wire), _listing(sut, wire)
    ids = [row.id for row in rows]
    followed = {spec.mark for spec in specs if spec.stream}
    wanted = {row.id for row in rows if row.mark in followed}
    attempts: dict[str, list[AttemptRow]] = {}
    states: dict[str, list[StateEvent]] = {}
    said: dict[str, dict[int, str]] = {}
    with ThreadPoolExecutor(READERS) as readers:
        parts = [ids[start::READERS] for start in range(READERS)]
        for found, came, words in readers.map(partial(_details, sut, history, wanted), parts):
            attempts |= found
            states |= came
            said |= words
    wire.close()
    hygiene = _looked_at(sut)
    sut.stop()
    read = {"rows": rows, "again": again, "attempts": attempts, "states": states, "said": said}
    return _put_together(sut, history_file, history, specs, deeds, hygiene, read)


def _put_together(
    sut: Sut,
    history_file: Path,
    history: History,
    specs: Sequence[JobSpec],
    deeds: Sequence[Deed],
    hygiene: Hygiene,
    read: Mapping[str, Any],
) -> Evidence:
    """After the end of the daemon: what it has left, and all that was written down."""
    hygiene.left_processes = sut.close()
    history.close()
    _after_stop(sut, hygiene)
    return Evidence(
        specs={spec.mark: spec for spec in specs},
        ops=operations(read_lines(history_file, Line)),
        effects=[_with_true_wall(line, sut) for line in read_lines(sut.effects_file, Effect)],
        lives=sut.lives,
        deeds=list(deeds),
        hygiene=hygiene,
        **read,
    )


def _with_true_wall(effect: Effect, sut: Sut) -> Effect:
    effect.wall = sut.true_wall(effect.wall)
    return effect


def _listing(sut: Sut, wire: Wire) -> list[Row]:
    rows: list[Row] = []
    cursor = ""
    while True:
        path = f"/v1/jobs?order=asc&limit={PAGE}&include=args,result{cursor}"
        status, _, data = wire.raw("GET", path)
        assert status == 200, data
        page = msgspec.json.decode(data, type=_Page)
        rows += [row_of(bytes(text), sut.true_wall) for text in page.jobs]
        if page.next is None:
            return rows
        cursor = f"&cursor={page.next}"


def _details(
    sut: Sut, history: History, wanted: set[str], ids: Iterable[str]
) -> tuple[dict[str, list[AttemptRow]], dict[str, list[StateEvent]], dict[str, dict[int, str]]]:
    """Attempts and state events of these jobs; of those that are `wanted`, what every event says."""
    wire = Wire(sut, history, -1)
    said: dict[str, dict[int, str]] = {}
    attempts: dict[str, list[AttemptRow]] = {}
    states: dict[str, list[StateEvent]] = {}
    for job in ids:
        _, _, data = wire.raw("GET", f"/v1/jobs/{job}/attempts")
        attempts[job] = [attempt_of(row, sut.true_wall) for row in json.loads(data)["attempts"]]
        path = f"/v1/jobs/{job}/events?follow=0" + ("" if job in wanted else "&kinds=state")
        _, _, data = wire.raw("GET", path, Accept="application/x-ndjson")
        events = [json.loads(line) for line in data.splitlines() if line]
        states[job] = [_state_event(event) for event in events if event["kind"] == "state"]
        if job in wanted:
            said[job] = {event["seq"]: digest_of(event) for event in events if event["kind"] in TOLD}
    wire.close()
    return attempts, states, said


def _state_event(line: dict[str, Any]) -> StateEvent:
    data = line["data"]
    return StateEvent(line["seq"], data["state"], data["epoch"], data["revision"])


def _looked_at(sut: Sut) -> Hygiene:
    """While it still runs."""
    nobody = threading.Event()
    zombies = set(zombies_of(sut.pid))
    for _ in range(STEADY_LOOKS):
        if not zombies:
            break
        nobody.wait(LOOK_S)
        zombies &= set(zombies_of(sut.pid))
    wal = sut.data_dir / "jobsvc.db-wal"
    # What the clients had is closed a moment after they have hung up; a leak stays.
    for _ in range(STEADY_LOOKS):
        if descriptors_of(sut.pid) <= sut.descriptors_ready:
            break
        nobody.wait(LOOK_S)
    return Hygiene(
        zombies=[str(pid) for pid in zombies],
        strange_files=[path.name for path in sut.data_dir.iterdir() if path.name not in FILES],
        wal_bytes=max(sut.wal_bytes, wal.stat().st_size if wal.exists() else 0),
        descriptors_ready=sut.descriptors_ready,
        descriptors_quiet=descriptors_of(sut.pid),
    )


def _holds(path: Path, word: bytes) -> bool:
    """Whether a file, of any size, holds a word."""
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return text.find(word) >= 0


def _after_stop(sut: Sut, hygiene: Hygiene) -> None:
    database = sqlite3.connect(f"file:{sut.data_dir / 'jobsvc.db'}?mode=ro", uri=True)
    try:
        hygiene.integrity = [str(row[0]) for row in database.execute("PRAGMA integrity_check")]
        hygiene.integrity += [str(row) for row in database.execute("PRAGMA foreign_key_check")]
    except sqlite3.Error as error:
        hygiene.integrity.append(repr(error))
    finally:
        database.close()
    hygiene.left_files = sorted(path.name for path in sut.temporary.iterdir())
    for path in (sut.log_file, *sorted(path for path in sut.data_dir.rglob("*") if path.is_file())):
        if _holds(path, SECRET.encode()):
            hygiene.secrets_found.append(path.name)
    token = sut.token
    with sut.log_file.open(errors="replace") as log:
        for line in log:
            if line.startswith("Traceback") or "Traceback (most recent call last)" in line:
                hygiene.log_troubles.append(line.strip()[:300])
            if token in line:
                hygiene.log_troubles.append("the token stands in the log")

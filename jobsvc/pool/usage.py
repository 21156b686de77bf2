"""F2: /proc: what an attempt uses at this moment, with all that has descended from its process.

Unlike the walk in `tree`, it looks only at the tree itself: some 60 µs for a process with two children, however many
processes the machine has. A tree of thousands takes a tenth of a second and more, so the look that comes twice a second
is a thread's (`limits.UsageWatch`); the reactor asks only of workers between two attempts. Who has left the tree is not
seen; in a kernel without CONFIG_PROC_CHILDREN, that is everybody but the root.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from jobsvc.pool.tree import rss_bytes

TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
"""Unit of processor time in /proc."""

UTIME, STIME, CUTIME, CSTIME = range(11, 15)
"""Places in /proc/PID/stat, counted from the state, which follows the command's name."""


class Usage(NamedTuple):
    """`rss_bytes`: resident memory, where pages shared by several processes count for each; `cpu_s`: processor time,
    that of ended and awaited children included.
    """  # fmt: skip

    pids: list[int]
    rss_bytes: int
    cpu_s: float


def usage_of(root: int) -> Usage:
    """What `root` and its descendants use. `root` must not have been reaped."""
    pids = family(root)
    return Usage(pids, sum(rss_bytes(pid) or 0 for pid in pids), sum(map(_cpu_s, pids)))


def weight_of(root: int) -> int:
    """Resident memory of `root` and its descendants, in bytes."""
    return usage_of(root).rss_bytes


def family(root: int) -> list[int]:
    """`root` and its descendants, parents before children; zombies too."""
    pids = [root]
    for pid in pids:  # grows while we go
        folder = f"/proc/{pid}/task"
        try:
            for thread in os.listdir(folder):  # noqa: PTH208 - half the cost of a Path
                pids += map(int, _text(f"{folder}/{thread}/children").split())
        except OSError:
            continue  # it has ended
    return pids


def known_as(root: int, number: int) -> list[int]:
    """The process of this tree that knows itself by this number; all of the tree where that is none of these here."""
    pids = family(root)
    return [number] if number in pids and _shares_numbers(number) else pids


def _shares_numbers(pid: int) -> bool:
    """Whether the process knows itself by this number: false in a namespace of process numbers of its own."""
    _, _, rest = _text(f"/proc/{pid}/status").partition(b"\nNSpid:")
    return rest.partition(b"\n")[0].split() == [str(pid).encode()]


def cpu_used_s(pid: int) -> float:
    """Processor time of this one process, without its children, as RLIMIT_CPU counts it. 0 when it is gone."""
    fields = _stat(pid)
    return sum(map(int, (fields[UTIME], fields[STIME]))) * TICK_S if fields else 0.0


def memory_of(pid: int) -> tuple[int, int]:
    """(writable private memory as RLIMIT_DATA counts it, resident memory) in bytes; zeros when it is gone."""
    found = {b"VmData": 0, b"VmRSS": 0}
    for line in _text(f"/proc/{pid}/status").split(b"\n"):
        name, _, value = line.partition(b":")
        if name in found:
            found[name] = int(value.split()[0]) * 1024
    return found[b"VmData"], found[b"VmRSS"]


def fair_bytes(pids: list[int]) -> int | None:
    """Resident memory of these together, each shared page counted by its shares; None when the kernel does not say.

    Costs 4 ms for each GiB.
    """
    total = 0
    for pid in pids:
        text = _text(f"/proc/{pid}/smaps_rollup")
        _, found, rest = text.partition(b"\nPss:")
        if found:
            total += int(rest.split(maxsplit=1)[0]) * 1024
    return total or None


def open_descriptors(pid: int) -> list[int]:
    """Numbers of its open descriptors."""
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/fd")]  # noqa: PTH208 - as above
    except OSError:
        return []


def _cpu_s(pid: int) -> float:
    fields = _stat(pid)
    return sum(map(int, fields[UTIME : CSTIME + 1])) * TICK_S if fields else 0.0


def _stat(pid: int) -> list[bytes]:
    # The command's name stands in brackets and may hold any character.
    return _text(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def _text(path: str) -> bytes:
    """What the file says; nothing when its process is gone."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - half the cost of a Path
            return file.read()
    except OSError:
        return b""

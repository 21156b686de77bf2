"""F2: tells a kill by the kernel for want of memory from any other SIGKILL.

The exit status of both is the same, but the kernel counts its own. A counter that has grown around the moment of a
death makes that death the kernel's. The counter is that of the daemon's memory cgroup and of those below it, in which
its workers are; where that cannot be read, or workers may have been moved elsewhere by a launcher prefix, that of the
whole machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

REFRESH_S = 5.0
"""A kill counts for a death if it came after the last reading but one: 5 to 10 s before. It takes the kernel a moment
to take a large process apart. A reading costs 0.2 ms."""
GROUPS_MAX = 64
"""Cgroups below the daemon's that are read; where there are more, the machine's counter must do."""

SCORE_MORE = 100
"""What our children add to the daemon's oom_score_adj, in thousandths of the memory: when it runs out, the kernel is to
take what eats it, and of two of about one size not the daemon."""
SCORE_MAX = 1000

ROOT = Path("/")


def prefer(pid: int) -> None:
    """Have the kernel take this child before the daemon. It is passed on to what the child starts."""
    with suppress(OSError):  # it has ended, or procfs is read-only: then the sizes alone decide
        own = int(Path("/proc/self/oom_score_adj").read_text())
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(min(SCORE_MAX, own + SCORE_MORE)))


class Counters:
    """How many processes the kernel has killed for want of memory, where ours are.

    Args:
        root: in place of `/`, for recorded files.
        anywhere: our processes may have been moved out of the daemon's cgroup.
    """

    def __init__(self, root: Path = ROOT, *, anywhere: bool = False) -> None:
        self._machine = root / "proc/vmstat"
        self._group, self._name = _memory_group(root)
        self._anywhere = anywhere or self._group is None

    @property
    def source(self) -> str:
        """For the log: which counter is read."""
        return str(self._machine if self._anywhere or self._group is None else self._group / self._name)

    def read(self) -> int:
        """Their sum so far; it may only be compared with another reading."""
        if not self._anywhere and self._group is not None:
            groups = [self._group, *_below(self._group)]
            if len(groups) <= GROUPS_MAX:
                return sum(_count(group / self._name) for group in groups)
        return _count(self._machine)


class OomWatch:
    """Whether a death was the kernel's doing.

    Args:
        counter: makes the counter; not before the start, as the daemon may be moved until then.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, counter: Callable[[], Counters]) -> None:
        self._clock = clock
        self._counter = counter
        self._counters: Counters | None = None
        self._older = self._newer = 0
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """From now on; before, no death is the kernel's."""
        self._counters = self._counter()
        self._older = self._newer = self._counters.read()
        self._timer = self._clock.callLater(REFRESH_S, self._refresh)
        self._log.info(
            "kills for want of memory are counted by {source}",
            source=self._counters.source, action="oom_watched",
        )  # fmt: skip

    def stop(self) -> None:
        """No more refreshing."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _refresh(self) -> None:
        assert self._counters is not None
        self._older, self._newer = self._newer, self._counters.read()
        self._older = min(self._older, self._newer)  # a cgroup has gone with its count
        self._timer = self._clock.callLater(REFRESH_S, self._refresh)

    def killed(self) -> bool:
        """Whether the SIGKILL that has just been seen, and was not ours, was the kernel's. Each count serves once."""
        if self._counters is None or self._counters.read() <= self._older:
            return False
        self._older += 1
        self._newer = max(self._older, self._newer)
        return True


def _memory_group(root: Path) -> tuple[Path | None, str]:
    """The folder of the daemon's memory cgroup and the name of the file that counts in it."""
    try:
        memberships = (root / "proc/self/cgroup").read_text().splitlines()
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return None, ""
    for version, name in (("cgroup", "memory.oom_control"), ("cgroup2", "memory.events")):
        for path in _paths(memberships, version):
            for mount, inside in _mounts(mounts, version):
                # In a container without a namespace of its own, the path is that of the host.
                below = path.removeprefix(inside) if inside != "/" else path
                group = root / mount.lstrip("/") / below.lstrip("/")
                if (group / name).is_file():
                    return group, name
    return None, ""


def _paths(memberships: list[str], version: str) -> Iterator[str]:
    for line in memberships:
        number, controllers, path = line.split(":", 2)
        if (number == "0") if version == "cgroup2" else ("memory" in controllers.split(",")):
            yield path


def _mounts(mounts: list[str], version: str) -> Iterator[tuple[str, str]]:
    """(mount point, what of the hierarchy is mounted there) of each hierarchy that may count memory."""
    for line in mounts:
        fields, _, more = line.partition(" - ")
        kind, *_, options = more.split(" ", 2)
        if kind == version and (version == "cgroup2" or "memory" in options.split(",")):
            yield fields.split(" ")[4], fields.split(" ")[3]


def _below(group: Path) -> list[Path]:
    """The cgroups below, as far as version 1 does not count them with their parent. One too many tells of more."""
    if (group / "memory.events").exists():
        return []
    found = [group]
    for folder in found:  # grows while we go
        if len(found) > GROUPS_MAX:
            break
        try:
            found += [entry for entry in folder.iterdir() if entry.is_dir()]
        except OSError:
            continue  # it has just been removed
    return found[1:]


def _count(file: Path) -> int:
    """The value of `oom_kill` in a file of names and numbers; 0 when it is not there."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))

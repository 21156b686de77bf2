"""`limits=` of tasks and commands: what it takes, what it refuses, and how it reaches the daemon."""

from __future__ import annotations

from typing import Any

import pytest

from jobsvc import command, task
from jobsvc.model.limits import MIB
from jobsvc.model.sizes import parse_size, size_text
from jobsvc.model.task import NO_LIMITS, Limits


def work() -> None: ...


async def wait() -> None: ...


def test_limits_reach_the_spec() -> None:
    """Sizes as people write them, all limits or some."""
    given: dict[str, int | str | None] = {
        "max_rss": "512M",
        "cpu_s": 60,
        "open_files": 256,
        "file_bytes": "1G",
    }
    all_four = Limits(512 * MIB, 60, 256, 1024 * MIB)
    assert task(executor="process", limits=given)(work).spec().limits == all_four
    assert command("c", ["true"], limits=given).spec().limits == all_four
    assert command("c", ["true"], limits=all_four).spec().limits == all_four
    some: dict[str, int | str | None] = {"max_rss": 64 * MIB, "cpu_s": None}
    assert task(executor="process", limits=some)(work).spec().limits == Limits(max_rss=64 * MIB)
    assert task(work).spec().limits == task(limits={})(work).spec().limits == NO_LIMITS


def test_a_tasks_own_limit_goes_before_the_default() -> None:
    """Also a larger one; what it does not name stays."""
    assert Limits(max_rss=5, open_files=9).over(Limits(1, 2, 3, None)) == Limits(5, 2, 9, None)


@pytest.mark.parametrize(
    ("limits", "error", "words"),
    [
        (5, TypeError, "limits must be a mapping with max_rss, cpu_s, open_files, file_bytes, not 5"),
        ({"memory": 1}, ValueError, "limits knows max_rss, cpu_s, open_files, file_bytes, not 'memory'"),
        ({"max_rss": "lots"}, ValueError, "limits['max_rss']: 'lots' is no number of bytes; write 4096, 64K"),
        ({"max_rss": "1.5G"}, ValueError, "is no number of bytes"),
        (
            {"max_rss": 1.5},
            TypeError,
            "limits['max_rss'] must be a number of bytes, or text like '512M', not 1.5",
        ),
        ({"max_rss": True}, TypeError, "limits['max_rss'] must be a number of bytes"),
        ({"max_rss": 512}, ValueError, "limits['max_rss'] must be from 16 MiB to 1024 TiB, not 512"),
        ({"max_rss": "9999T"}, ValueError, "limits['max_rss'] must be from"),
        ({"cpu_s": 0}, ValueError, "limits['cpu_s'] must be from 1 to"),
        ({"cpu_s": 0.5}, TypeError, "limits['cpu_s'] must be a whole number of seconds, not 0.5"),
        ({"cpu_s": True}, TypeError, "limits['cpu_s'] must be a whole number"),
        ({"open_files": 7}, ValueError, "limits['open_files'] must be from 8 to"),
        ({"open_files": "8"}, TypeError, "limits['open_files'] must be a whole number of descriptors"),
        ({"file_bytes": 0}, ValueError, "limits['file_bytes'] must be from 1 bytes to"),
    ],
    ids=str,
)
def test_a_wrong_limit_is_refused_where_it_is_written(
    limits: Any, error: type[Exception], words: str
) -> None:
    """By its name, with what is allowed and what it was; the same for tasks and commands."""
    with pytest.raises(error) as refused:
        task(executor="process", limits=limits)(work)
    assert str(refused.value).startswith("task 'work': ")
    assert words in str(refused.value)
    with pytest.raises(error) as refused:
        command("c", ["true"], limits=limits)
    assert str(refused.value).startswith("command 'c': ")
    assert words in str(refused.value)


def test_what_shares_its_worker_cannot_be_limited() -> None:
    """It says why, and what to do."""
    with pytest.raises(
        ValueError, match="a thread shares its worker: limits need executor='process' or a command"
    ):
        task(limits={"cpu_s": 1})(work)
    with pytest.raises(ValueError, match="a coroutine shares its worker: limits need executor='process'"):
        task(limits={"cpu_s": 1})(wait)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("64K", 65_536),
        ("64kib", 65_536),
        (" 512M ", 512 * MIB),
        ("1GB", 1024 * MIB),
        ("2t", 2 << 40),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "1.5G", "1 0", "1X", "0x10", "٣"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no number of bytes; write 4096, 64K, 512M or 1G"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (10_000, "9.8 KiB"),
        (512 * MIB, "512 MiB"),
        (1536 * MIB, "1.5 GiB"),
    ],
)
def test_sizes_are_told(size: int, text: str) -> None:
    assert size_text(size) == text

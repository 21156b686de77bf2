"""The example tasks, run as an author would test them: as plain functions, and by `jobsvc.testing`."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from examples import tasks
from examples.make_numbers import make_numbers
from jobsvc.authoring.discover import discover
from jobsvc.testing import run


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "inner" / "site-packages").mkdir(parents=True)
    (tmp_path / "a.py").write_bytes(b"one two\ntwo\n")
    (tmp_path / "inner" / "b.py").write_bytes(b"two three\n")
    (tmp_path / "inner" / "notes.txt").write_bytes(b"not Python\n")
    (tmp_path / "inner" / "site-packages" / "c.py").write_bytes(b"not the installation's own\n")
    return tmp_path


def test_sources_are_python_files_outside_of_site_packages(tree: Path) -> None:
    assert tasks.list_sources(str(tree)) == [str(tree / "a.py"), str(tree / "inner" / "b.py")]


def test_a_digest_is_that_of_the_bytes(tree: Path) -> None:
    assert tasks.digest(str(tree / "a.py")) == hashlib.sha256(b"one two\ntwo\n").hexdigest()


def test_words_are_counted_with_progress_for_each_file(tree: Path) -> None:
    done = run(tasks.count_words, folder=str(tree))
    assert done.result == {
        "files": 2,
        "lines": 3,
        "words": 5,
        "common": {"two": 3, "one": 1, "three": 1},
    }
    assert [progress["n"] for progress in done.progress] == [1, 2]


def test_counting_stops_when_asked(tree: Path) -> None:
    assert run(tasks.count_words, folder=str(tree), cancel_after_items=0).cancelled


def test_every_line_of_the_numbers_gives_an_item_and_the_total_is_what_the_generator_said(
    tmp_path: Path,
) -> None:
    path = tmp_path / "numbers.txt"
    total = make_numbers(path, 7_000)
    done = run(tasks.add_lines, path=str(path))
    assert len(done.items) == 7_000
    assert sum(done.items) == done.result == total
    assert path.read_text().splitlines()[6_999].count(" ") == 9


def test_the_file_of_numbers_is_the_same_each_time(tmp_path: Path) -> None:
    totals = [make_numbers(tmp_path / name, 100) for name in ("a", "b")]
    assert totals[0] == totals[1]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_tokens_come_one_by_one() -> None:
    assert run(tasks.tokens, text="one  two three", pause_s=0).items == ["one", "two", "three"]


def test_a_waiting_thread_gives_its_square_and_logs() -> None:
    done = run(tasks.slow_square, n=7, pause_s=0)
    assert done.result == 49
    assert done.logs[-1].fields == {"pause_s": 0}


def test_a_waiting_thread_looks_whether_it_was_cancelled() -> None:
    assert run(tasks.slow_square, n=7, pause_s=60, cancel_after_items=0).cancelled


def test_wc_prints_one_line(tree: Path) -> None:
    done = run(tasks.wc, path=str(tree / "a.py"))
    [line] = done.items
    assert line.split() == ["2", "3", "12", str(tree / "a.py")]


def test_sort_sorts_by_number(tmp_path: Path) -> None:
    (tmp_path / "n").write_text("10 1\n9 2\n100 3\n")
    assert run(tasks.sort_numbers, path=str(tmp_path / "n")).items == ["9 2", "10 1", "100 3"]


def test_the_module_holds_each_task_once_on_the_executor_it_is_for() -> None:
    found = {name: task.spec().executor for name, task in discover(["examples.tasks"]).items()}
    assert found == {
        "list_sources": "thread",
        "slow_square": "thread",
        "digest": "process",
        "count_words": "process",
        "add_lines": "process",
        "fetch": "loop",
        "fetch_all": "loop",
        "tokens": "loop",
        "wc": "command",
        "sort_numbers": "command",
    }

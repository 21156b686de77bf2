"""The steps of the demo: each runs jobs of `examples.tasks` through HTTP, shows them live, and checks what came out.

Every check compares with something computed here, without jobsvc, in another way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from examples.pages import Pages
from examples.show import Row, Show
from jobsvc.client import Client, JobCancelled, Refused

FETCHES = 60
"""Pages that are fetched at the same time, one job each."""
FETCHED_AT_ONCE = 40
"""Pages that a single job fetches."""
PAGE_DELAY_S = 0.3
"""What the demo's web server takes for a page: one after the other, the fetches would take half a minute."""
TOKEN_PAUSE_S = 0.06
TEXT = "There is no single best approach to concurrency, so here it is one word on a function."
SHOW_ITEMS = 2_000
"""The bar moves once for so many items."""
CANCEL_PAUSE_S = 60.0
"""Of a job that is cancelled long before."""


class Place(NamedTuple):
    """What the steps work on."""

    sources: Path
    """The source tree of this Python."""
    numbers: Path
    """A large file of numbers,"""
    lines: int
    """its lines,"""
    total: int
    """and the sum of all of them, known since they were made."""


Step = Callable[[Client, Show, Place], Row]


def find_sources(client: Client, show: Show, place: Place) -> Row:
    """A thread lists the Python files of the installation."""
    began = monotonic()
    paths = client.call("list_sources", {"root": str(place.sources)})
    seconds = monotonic() - began
    show.say(f"   {len(paths):,} Python files below {place.sources}")
    return Row("list files", "thread", 1, seconds, f"{len(paths):,} files", paths == _sources(place.sources))


def digest_sources(client: Client, show: Show, place: Place) -> Row:
    """A digest of each file, one job per file: `map` sends them in bulk and gives the results in order."""
    paths = _sources(place.sources)
    began = monotonic()
    digests = []
    with show.bar("SHA-256 of every file", len(paths)) as advance:
        for digest in client.map("digest", ({"path": path} for path in paths)):
            digests.append(digest)
            advance(len(digests))
    seconds = monotonic() - began
    expected = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths]
    different = f"{len(set(digests)):,} different files"
    return Row("digests", "process", len(paths), seconds, different, digests == expected)


def count_words(client: Client, show: Show, place: Place) -> Row:
    """One job per package folder. The largest is followed: its progress comes as events, while it runs."""
    packages = {_package(path, place.sources) for path in _sources(place.sources)}
    folders = sorted(package for package in packages if package.is_dir())
    largest = max(folders, key=lambda folder: len(_sources(folder)))
    began = monotonic()
    jobs = {folder: client.submit("count_words", {"folder": str(folder)}) for folder in folders}
    with show.bar(f"counting words in {largest.name}/", len(_sources(largest))) as advance:
        for event in client.events(jobs[largest], kinds=["progress", "end"]):
            if event.kind == "progress":
                advance(event.data["n"])
    results = [client.result(job) for job in jobs.values()]
    seconds = monotonic() - began
    texts = [Path(path).read_bytes() for folder in folders for path in _sources(folder)]
    lines = sum(text.count(b"\n") for text in texts)
    expected = (len(texts), lines, sum(len(text.split()) for text in texts))
    found = tuple(sum(result[name] for result in results) for name in ("files", "lines", "words"))
    common = ", ".join(results[folders.index(largest)]["common"])
    show.say(f"   most frequent in {largest.name}/: {common}")
    return Row("word counts", "process", len(jobs), seconds, f"{found[2]:,} words", found == expected)


def stream_sums(client: Client, show: Show, place: Place) -> Row:
    """A generator on a process: each line's sum is an item of the job's stream, read here while the job runs."""
    began = monotonic()
    job = client.submit("add_lines", {"path": str(place.numbers)})
    count = total = 0
    with show.bar("sums of lines, streamed", place.lines) as advance:
        for value in client.stream(job):
            count += 1
            total += value
            if count % SHOW_ITEMS == 0:
                advance(count)
        advance(count)
    seconds = monotonic() - began
    right = (count, total, client.result(job)) == (place.lines, place.total, place.total)
    return Row("sums of lines", "process", 1, seconds, f"{count:,} items, sum {total:,}", right)


def fetch_pages(client: Client, show: Show, _place: Place) -> Row:
    """Pages by many coroutines at once, then by one job that gathers Deferreds. The server is slow, the loop is not."""
    with Pages(PAGE_DELAY_S) as pages:
        began = monotonic()
        fetched = []
        with show.bar("pages, one job each", FETCHES) as advance:
            for reply in client.map("fetch", ({"url": pages.url(n)} for n in range(FETCHES))):
                fetched.append(reply)
                advance(len(fetched))
        fetched += client.call("fetch_all", {"urls": [pages.url(n) for n in range(FETCHED_AT_ONCE)]})
        seconds = monotonic() - began
        expected = [Pages.digest(n) for n in (*range(FETCHES), *range(FETCHED_AT_ONCE))]
    show.say(f"   {len(fetched)} pages of {PAGE_DELAY_S:g} s each in {seconds:.2f} s")
    right = [reply["sha256"] for reply in fetched] == expected
    return Row("fetches", "loop", FETCHES + 1, seconds, f"{len(fetched)} pages", right)


def run_commands(client: Client, show: Show, place: Place) -> Row:
    """Programs: what they print comes as items, line by line."""
    began = monotonic()
    [line] = client.stream(client.submit("wc", {"path": str(place.numbers)}))
    show.say(f"   wc: {' '.join(line.split())}")
    smallest: list[int] = []
    job = client.submit("sort_numbers", {"path": str(place.numbers)})
    with show.bar("lines from sort", place.lines) as advance:
        for count, text in enumerate(client.stream(job), 1):
            smallest.append(int(text.split(" ", 1)[0]))
            if count % SHOW_ITEMS == 0:
                advance(count)
        advance(len(smallest))
    code = client.result(job)["code"]
    seconds = monotonic() - began
    with place.numbers.open("rb") as file:
        expected = sorted(int(line.split(b" ", 1)[0]) for line in file)
    counted = tuple(map(int, line.split()[:3]))
    size = place.numbers.stat().st_size
    right = code == 0 and smallest == expected and counted == (place.lines, place.lines * 10, size)
    return Row("wc, sort", "command", 2, seconds, f"{len(smallest):,} lines", right)


def stream_tokens(client: Client, show: Show, _place: Place) -> Row:
    """Words as they come, one by one: the reader sees the first long before the last is made."""
    began = monotonic()
    words, seen_at = [], []
    for word in client.stream(client.submit("tokens", {"text": TEXT, "pause_s": TOKEN_PAUSE_S})):
        words.append(word)
        seen_at.append(monotonic())
        show.word(word)
    show.word("")
    seconds = monotonic() - began
    spread_s = seen_at[-1] - seen_at[0]
    # Half of the pauses at least: not kept back and given in one piece at the end.
    live = spread_s > TOKEN_PAUSE_S * (len(words) - 1) / 2
    right = live and words == TEXT.split()
    return Row("tokens", "loop", 1, seconds, f"{len(words)} words over {spread_s:.2f} s", right)


def refuse_and_cancel(client: Client, show: Show, _place: Place) -> Row:
    """What goes wrong says so: arguments that do not fit are refused before anything is stored, a cancel ends a job."""
    began = monotonic()
    pointers: list[str] = []
    try:
        client.submit("slow_square", {"n": "seven"})
    except Refused as refused:
        pointers = [error["pointer"] for error in refused.problem.errors]
        show.say(f"   refused: {refused}")
    job = client.submit("slow_square", {"n": 7, "pause_s": CANCEL_PAUSE_S})
    for event in client.events(job, kinds=["log", "end"]):
        if event.kind == "log":  # it runs
            show.say(f"   the job printed: {event.data['message']}")
            client.cancel(job)
            break
    state = "not cancelled"
    try:
        client.result(job, timeout=CANCEL_PAUSE_S / 2)
    except JobCancelled as cancelled:
        state = cancelled.state
        show.say(f"   {cancelled}")
    right = pointers == ["/args/n"] and state == "cancelled"
    return Row("refuse, cancel", "thread", 1, monotonic() - began, f"{', '.join(pointers)}; {state}", right)


STEPS: Sequence[Step] = (
    find_sources,
    digest_sources,
    count_words,
    stream_sums,
    fetch_pages,
    run_commands,
    stream_tokens,
    refuse_and_cancel,
)


def _package(path: str, root: Path) -> Path:
    """The folder directly below `root` that holds a file; the file itself when it lies in `root`."""
    return root / Path(path).relative_to(root).parts[0]


def _sources(folder: Path) -> list[str]:
    """The Python files below a folder, sorted; found in another way than the task does."""
    skipped = {"site-packages", "__pycache__"}
    found = (path for path in folder.rglob("*.py") if path.is_file())
    return sorted(str(path) for path in found if not skipped.intersection(path.relative_to(folder).parts))

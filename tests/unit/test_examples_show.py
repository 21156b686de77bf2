"""What the demo prints where there is no terminal, and its web server."""

from __future__ import annotations

import hashlib
from io import StringIO
from urllib.request import ProxyHandler, build_opener

from examples.pages import PAGE_BYTES, Pages
from examples.show import PlainShow, Row, make_show


class _Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_bar_is_a_line_each_half_second_and_one_at_the_end() -> None:
    out, clock = StringIO(), _Clock()
    with PlainShow(out, clock).bar("things", 4_000) as advance:
        for n in range(1, 5):
            clock.now_s += 0.3
            advance(n * 1_000)
    assert out.getvalue().splitlines() == [
        "   things: 2,000 of 4,000",
        "   things: 4,000 of 4,000",
        "   things: 4,000 of 4,000 in 1.20 s",
    ]


def test_words_stand_in_one_line() -> None:
    out = StringIO()
    show = PlainShow(out)
    for word in ["one", "two", ""]:
        show.word(word)
    show.say("next")
    assert out.getvalue() == "   one two\nnext\n"


def test_the_table_says_what_was_wrong() -> None:
    out = StringIO()
    show = make_show(out)
    show.table([Row("a", "loop", 1_000, 0.5, "fine", right=True), Row("b", "thread", 1, 2, "?", right=False)])
    lines = out.getvalue().splitlines()
    assert lines[2].split() == ["a", "loop", "1,000", "0.50", "fine", "right"]
    assert lines[3].endswith("WRONG")


def test_a_page_is_what_its_digest_says() -> None:
    with Pages(0) as pages, build_opener(ProxyHandler({})).open(pages.url(7)) as reply:
        body = reply.read()
    assert len(body) == PAGE_BYTES
    assert hashlib.sha256(body).hexdigest() == Pages.digest(7)

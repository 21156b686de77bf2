"""The page of the API for people: whole, inert, and the same everywhere."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser

from jobsvc.http.contract.page import curl, prose, render
from jobsvc.http.contract.served import contract
from tests.http.house import House
from tests.http.wire import Reply

VOID = frozenset(("meta", "br", "hr", "link", "img", "input"))
DOCUMENT = contract().document()


class Outline(HTMLParser):
    """Elements in order, ids, links, attributes; `unclosed` is what was opened and not closed, or closed wrongly."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.crossed: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open[-1:] == [tag]:
            self.open.pop()
        else:
            self.crossed.append(tag)

    def values(self, name: str) -> list[str]:
        return [value or "" for key, value in self.attributes if key == name]


def page(house: House) -> Reply:
    """As a browser gets it that was given the address: no token."""
    wire = house.wire()
    wire.request("GET", "/docs", token=None)
    return wire.reply()


def test_a_browser_can_open_the_page(house: House) -> None:
    """Without a token, as HTML, and again with 304."""
    reply = page(house)
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    wire = house.wire()
    wire.request("GET", "/docs", headers={"If-None-Match": reply.headers["etag"]}, token=None)
    assert wire.reply().status == 304


def test_the_page_loads_and_runs_nothing(house: House) -> None:
    """No script, no frame, no address elsewhere; the policy allows its own style sheet, by its hash, alone."""
    reply = page(house)
    text = reply.body.decode()
    outline = Outline(text)
    assert not {"script", "link", "img", "iframe", "form", "object", "svg"}.intersection(outline.elements)
    assert not outline.values("style") + outline.values("src")
    assert not [name for name, _ in outline.attributes if name.startswith("on")]
    assert all(link.startswith("#") for link in outline.values("href"))
    [style] = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style
    digest = b64encode(sha256(style.encode()).digest()).decode()
    policy = dict(part.split(" ", 1) for part in reply.headers["content-security-policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "style-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["x-frame-options"] == "DENY"


def test_the_page_tells_nothing_of_the_daemon(house: House) -> None:
    """No version, no task, no address: what anybody may read who finds the port."""
    house.submit("echo", labels={"who": "somebody"})
    text = page(house).body.decode()
    assert DOCUMENT["info"]["version"] not in text
    assert "somebody" not in text
    other = House()
    assert page(other).body == page(house).body
    other.close()


def test_the_page_is_whole() -> None:
    """Every operation, each of its parameters and statuses, every shape; all links lead somewhere; sound HTML."""
    text = render(DOCUMENT)
    outline = Outline(text)
    assert (outline.open, outline.crossed) == ([], [])
    ids = outline.values("id")
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in outline.values("href")} <= set(ids)
    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values():
            name = operation["operationId"]
            assert name in ids
            article = text.partition(f'<article id="{name}">')[2].partition("</article>")[0]
            assert f"<code>{path}</code>" in article
            for parameter in operation["parameters"]:
                assert f"<code>{parameter['name']}</code>" in article, (name, parameter["name"])
            for status in operation["responses"]:
                assert f"<strong>{status}</strong>" in article, (name, status)
    assert {f"shape-{name}" for name in DOCUMENT["components"]["schemas"]} <= set(ids)


def test_what_goes_into_the_page_is_escaped() -> None:
    """Should a text of ours ever look like HTML."""
    assert prose("## <a>\n\ntext `<b>` & more\n- one\n- `two`") == (
        "<h2>&lt;a&gt;</h2>\n<p>text <code>&lt;b&gt;</code> &amp; more</p>\n"
        "<ul><li>one</li><li><code>two</code></li></ul>"
    )


def test_examples_are_command_lines() -> None:
    """Quoted for a shell, with the token where one is needed."""
    paths = DOCUMENT["paths"]
    assert curl("/livez", "get", paths["/livez"]["get"]) == 'curl "$URL/livez"'
    job = paths["/v1/jobs/{job_id}"]
    assert curl("/v1/jobs/{job_id}", "delete", job["delete"]) == (
        'curl -H "Authorization: Bearer $TOKEN" -X DELETE "$URL/v1/jobs/01900000-0000-7000-8000-000000000001"'
    )
    submit = curl("/v1/jobs", "post", paths["/v1/jobs"]["post"])
    assert submit == (
        'curl -H "Authorization: Bearer $TOKEN" '
        """--json '{"task": "slow_square", "args": {"n": 12}, "labels": {"customer": "acme"}}' "$URL/v1/jobs\""""
    )

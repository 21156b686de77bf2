"""F3: the contract as one page for people: HTML and a style sheet, no script, nothing loaded from anywhere.

Made from the OpenAPI document alone, and of a text that is ours; what goes in is escaped all the same.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from hashlib import sha256
from html import escape
from shlex import quote
from typing import Any

STYLE = """\
:root { color-scheme: light dark; --line: #8885; --soft: #8881; --mark: #06c; }
@media (prefers-color-scheme: dark) { :root { --mark: #6bf; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 54rem; font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1, h2, h3, h4 { line-height: 1.2; margin: 2rem 0 .5rem; }
h3 { font-size: 1.1rem; }
h4 { margin: 1rem 0 .25rem; font-size: .95rem; }
a { color: var(--mark); }
code, pre { font: .875em/1.45 ui-monospace, monospace; }
code { background: var(--soft); border-radius: .2rem; padding: 0 .2rem; }
pre { background: var(--soft); border-radius: .3rem; padding: .6rem; overflow-x: auto; overflow-wrap: normal; }
nav ul { columns: 18rem; padding-left: 0; list-style: none; }
article { border-top: 1px solid var(--line); }
.method { font-weight: 700; color: var(--mark); }
dl { margin: 0; }
dt { margin-top: .5rem; }
dd { margin-left: 1rem; }
dd p, dd ul { margin: .2rem 0; }
ul { padding-left: 1.2rem; }
.quiet { opacity: .75; }
"""
_STYLE_HASH = b64encode(sha256(STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src 'sha256-{_STYLE_HASH}'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""Nothing but the page's own style sheet, known by its hash; nobody may frame it."""

_CODE = re.compile(r"`([^`]+)`")


def render(document: Mapping[str, Any]) -> str:
    """The page."""
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    parts = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(document['info']['title'])}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(document['info']['title'])}</h1><p>{escape(document['info']['summary'])}</p>",
        "<nav>",
    ]
    for tag in document["tags"]:
        parts.append(f"<h3>{escape(tag['name'])}</h3><p class=quiet>{escape(tag['description'])}</p><ul>")
        parts += [
            f'<li><a href="#{escape(operation["operationId"])}"><span class=method>{method.upper()}</span> '
            f"<code>{escape(path)}</code></a></li>"
            for path, method, operation in operations
            if tag["name"] in operation["tags"]
        ]
        parts.append("</ul>")
    parts += ["</nav>", prose(document["info"]["description"]), "<h2>Operations</h2>"]
    parts += [_operation(document, *operation) for operation in operations]
    parts.append("<h2>Shapes</h2>")
    parts += [
        f'<h3 id="shape-{escape(name)}">{escape(name)}</h3>{_shape(schema)}'
        for name, schema in document["components"]["schemas"].items()
    ]
    return "\n".join([*parts, "</body></html>\n"])


def prose(text: str) -> str:
    """Our simple Markdown as HTML: headings, lists, paragraphs, code."""
    out: list[str] = []
    for block in text.strip().split("\n\n"):
        paragraph: list[str] = []
        items: list[str] = []
        for line in block.split("\n"):
            if line.startswith("## "):
                out.append(f"<h2>{_inline(line[3:])}</h2>")
            elif line.startswith("- "):
                items.append(line[2:])
            elif items:  # text goes on behind a list
                out += _flow(paragraph, items)
                paragraph, items = [line], []
            else:
                paragraph.append(line)
        out += _flow(paragraph, items)
    return "\n".join(out)


def _flow(paragraph: Iterable[str], items: Iterable[str]) -> list[str]:
    text, listed = " ".join(paragraph), "".join(f"<li>{_inline(item)}</li>" for item in items)
    return [part for part in (text and f"<p>{_inline(text)}</p>", listed and f"<ul>{listed}</ul>") if part]


def _inline(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", escape(text))


def _operation(document: Mapping[str, Any], path: str, method: str, operation: Mapping[str, Any]) -> str:
    head = f"<span class=method>{method.upper()}</span> <code>{escape(path)}</code>"
    parts = [
        f'<article id="{escape(operation["operationId"])}"><h3>{head}</h3>',
        f"<p>{_inline(operation['summary'])}</p>{prose(operation['description'])}",
    ]
    if operation["parameters"]:
        parts += ["<h4>Parameters</h4><dl>", *(_parameter(p) for p in operation["parameters"]), "</dl>"]
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<h4>Body</h4><p><code>{escape(media)}</code> {_shape_links(content)}</p>")
    parts.append("<h4>Replies</h4><dl>")
    parts += [_reply(document, status, answer) for status, answer in operation["responses"].items()]
    parts.append(f"</dl><h4>With curl</h4><pre>{escape(curl(path, method, operation))}</pre></article>")
    return "\n".join(parts)


def _parameter(parameter: Mapping[str, Any]) -> str:
    return (
        f"<dt><code>{escape(parameter['name'])}</code> <span class=quiet>{parameter['in']}, "
        f"{escape(_kind(parameter['schema']))}</span></dt><dd>{_inline(parameter['description'])}</dd>"
    )


def _reply(document: Mapping[str, Any], status: str, answer: Mapping[str, Any]) -> str:
    if "$ref" in answer:
        answer = document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    contents = answer.get("content", {})
    bodies = "; ".join(f"<code>{escape(media)}</code> {_shape_links(c)}" for media, c in contents.items())
    headers = ", ".join(
        f"<code>{escape(name)}</code>"
        for name in answer.get("headers", {})
        if name not in ("X-Request-ID", "Content-Length")  # nearly all have them
    )
    return (
        f"<dt><strong>{escape(status)}</strong></dt><dd>{prose(answer['description'])}"
        f"<p class=quiet>{bodies}{' · ' if bodies and headers else ''}{headers}</p></dd>"
    )


def _shape_links(content: Mapping[str, Any]) -> str:
    """Links to the shapes that a body is made of."""
    shape = content.get("x-itemSchema", content.get("schema", {}))
    names = [shape["$ref"]] if "$ref" in shape else [s["$ref"] for s in shape.get("allOf", ()) if "$ref" in s]
    lines = "lines of " if "x-itemSchema" in content else ""
    return ", ".join(
        f'{lines}<a href="#shape-{escape(ref.rpartition("/")[2])}">{escape(ref.rpartition("/")[2])}</a>'
        for ref in names
    )


def _shape(schema: Mapping[str, Any]) -> str:
    parts = [f"<p>{_inline(schema['description'])}</p>" if "description" in schema else ""]
    for word in ("oneOf", "anyOf"):
        parts += [_shape(choice) for choice in schema.get(word, ())]
    required = schema.get("required", ())
    rows = [
        f"<dt><code>{escape(name)}</code> <span class=quiet>{escape(_kind(member))}"
        f"{'' if name in required else ', may be left out'}</span></dt>"
        f"<dd>{_inline(member.get('description', ''))}</dd>"
        for name, member in schema.get("properties", {}).items()
    ]
    return "".join([*parts, "<dl>", *rows, "</dl>"]) if rows else "".join(parts)


def _kind(schema: Mapping[str, Any]) -> str:
    """The type in few words."""
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " | ".join(word or '""' for word in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_kind(choice) for choice in schema["anyOf"])
    kind = schema.get("type", "any")
    words = " or ".join(kind) if isinstance(kind, list) else str(kind)
    if words == "array":
        return (
            f"{_kind(schema.get('items', {}))}, joined by commas"
            if "style" in schema
            else "list of " + _kind(schema.get("items", {}))
        )
    return f"{words} ({schema['format']})" if "format" in schema else words


def curl(path: str, method: str, operation: Mapping[str, Any]) -> str:
    """A command line that does it; `$URL` and `$TOKEN` are the daemon's."""
    words = ["curl"]
    if operation["security"]:
        words.append('-H "Authorization: Bearer $TOKEN"')
    contents = operation.get("requestBody", {}).get("content", {})
    for media, content in list(contents.items())[:1]:  # the first of its types is the usual one
        body = content.get("example")
        if media == "application/json":
            words.append(f"--json {quote(json.dumps(body))}")
        else:
            words += [f"-H 'Content-Type: {media}'", f"--data-binary {quote(str(body))}"]
    if not contents and method != "get":
        words.append(f"-X {method.upper()}")
    for parameter in operation["parameters"]:
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", str(parameter["example"]))
    return " ".join([*words, f'"$URL{path}"'])

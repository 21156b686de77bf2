"""F0: every place of a JSON value together with the type that stands there.

For the slow path of argument reading only: what one decode refused is looked at once more, place by place. Linear in
the size of the value, without recursion of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from json import JSONDecoder
from typing import Any

import msgspec

from jobsvc.model.typetree import TypeNode


def parse(raw: bytes) -> Any:
    """JSON text as Python values; numbers with a fraction or an exponent stay their text, as `msgspec.Raw`.

    `msgspec.json.encode` writes it all back, so a Decimal keeps its zeros.

    Raises:
        ValueError: it is no JSON, or not UTF-8.
        RecursionError: it is nested too deeply.
    """
    return _DECODER.decode(raw.decode())


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = JSONDecoder(parse_float=lambda text: msgspec.Raw(text.encode()), parse_constant=_no_constant)


class Place:
    """One value: its type (never a union or a ref), its JSON pointer, and the list or dict that holds it."""

    __slots__ = ("_holder", "_key", "node", "pointer", "value")

    def __init__(self, node: TypeNode, value: Any, pointer: str, holder: Any, key: str | int) -> None:
        self.node = node
        self.value = value
        self.pointer = pointer
        self._holder = holder
        self._key = key

    def replace(self, value: Any) -> None:
        """Put another value here."""
        self._holder[self._key] = value

    def cast(self, node: TypeNode) -> Place:
        """The same place, looked at as another type."""
        return Place(node, self.value, self.pointer, self._holder, self._key)


def escaped(name: str) -> str:
    """A name as a part of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def places(node: TypeNode, holder: Any, key: str | int) -> Iterator[Place]:
    """All places of the value `holder[key]` of type `node`, itself first.

    A member of a union that is excluded by the value's JSON type or tag is left out; where several stay, the place
    comes once for each.
    """
    objects = _objects(node)
    todo = [Place(node, holder[key], f"/{escaped(str(key))}", holder, key)]
    while todo:
        place = todo.pop()
        node = objects[place.node.name] if place.node.kind == "ref" else place.node
        if node.kind == "union":
            todo += [place.cast(part) for part in _members(node, place.value, objects)]
            continue
        yield place if node is place.node else place.cast(node)
        if isinstance(place.value, (dict, list)):
            value: Any = place.value
            todo += [
                Place(part, value[at], f"{place.pointer}/{escaped(str(at))}", value, at)
                for at, part in _parts(node, value)
            ]


def argument_places(node: TypeNode, value: Any) -> Iterator[Place]:
    """All places of arguments, given by name (a dict) or by position (a list), of the signature `node`."""
    if isinstance(value, list):
        fields = [field for field in node.fields if not field.named_only]
        for at, field in enumerate(fields[: len(value)]):
            yield from places(field.type, value, at)
    elif isinstance(value, dict):
        for field in node.fields:
            if field.name in value:
                yield from places(field.type, value, field.name)


def _objects(node: TypeNode) -> dict[str, TypeNode]:
    """What a ref of this tree may mean, by name."""
    found: dict[str, TypeNode] = {}
    todo = [node]
    while todo:
        one = todo.pop()
        if one.name and one.kind != "ref":
            found[one.name] = one
        todo += [*one.of, *(field.type for field in one.fields)]
    return found


def _members(union: TypeNode, value: Any, objects: dict[str, TypeNode]) -> list[TypeNode]:
    """The members of a union that `value` may be."""
    found = [objects[part.name] if part.kind == "ref" else part for part in union.of]
    if any(part.kind in {"float", "decimal"} for part in found):
        found = [part for part in found if part.kind != "int"]  # then 4.0 is no integer written badly
    if isinstance(value, dict):
        found = [part for part in found if part.tag_field is None or value.get(part.tag_field) == part.tag]
    return found


def _parts(node: TypeNode, value: Any) -> Iterator[tuple[str | int, TypeNode]]:
    """Key and type of the parts of a dict or list of type `node`."""
    if isinstance(value, dict):
        if node.kind == "dict":
            yield from ((key, node.of[1]) for key in value)
        else:
            yield from ((field.name, field.type) for field in node.fields if field.name in value)
    elif node.kind in {"list", "set", "var_tuple"}:
        yield from ((at, node.of[0]) for at in range(len(value)))
    else:
        skip = 1 if node.tag_field is not None else 0  # an array-like struct starts with its tag
        types = node.of or (field.type for field in node.fields)
        yield from ((at, part) for at, part in enumerate(types, skip) if at < len(value))

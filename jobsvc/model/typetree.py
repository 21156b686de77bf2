"""F0: the type tree: a description of a Python type that travels as data, and how a checker type is made from it.

A worker describes the types of its tasks (`model.describe`); the daemon, which never imports user code, rebuilds types
from the tree and decodes with them only to check. JSON Schema would not do: it loses datetimes and the order of
fields. This module must not import what only a worker needs.
"""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import uuid
from collections.abc import Callable
from typing import Annotated, Any, ForwardRef, Literal, NotRequired, Required, TypedDict, Union

import msgspec

TypeKind = Literal[
    "any", "none", "bool", "int", "float", "str", "bytes", "datetime", "date", "time", "timedelta", "uuid", "decimal",
    "raw", "list", "set", "tuple", "var_tuple", "dict", "union", "literal", "struct", "typed_dict", "named_tuple",
    "ref", "opaque", "secret",
]  # fmt: skip
"""`ref` points to an object that was described earlier in the tree, by its name: this is how a type contains itself.
`opaque` is a type that only the worker can check. `raw` is JSON text kept as it came. `secret`
is a string that is stored encrypted."""

Scalar = str | int | None


class TypeNode(msgspec.Struct, frozen=True, omit_defaults=True):
    """One type.

    Args:
        kind: what it is; it decides which of the others have a meaning.
        of: item of a list, set or var_tuple; items of a tuple; key and value of a dict; members of a union.
        fields: of struct, typed_dict and named_tuple, in their order.
        values: of a literal or an enum.
        limits: constraints by the names of `msgspec.Meta`: ge, gt, le, lt, multiple_of, pattern, min_length,
            max_length, tz.
        name: of a struct, typed_dict or named_tuple, unique in its tree; of a ref, which of them it means.
        tag_field, tag: of a struct in a tagged union.
        array_like: the struct is written as a JSON array.
        closed: the struct refuses unknown fields.
    """

    kind: TypeKind
    of: tuple[TypeNode, ...] = ()
    fields: tuple[FieldNode, ...] = ()
    values: tuple[Scalar, ...] = ()
    limits: dict[str, int | float | bool | str] = {}
    name: str = ""
    tag_field: str | None = None
    tag: str | int | None = None
    array_like: bool = False
    closed: bool = False


class FieldNode(msgspec.Struct, frozen=True, omit_defaults=True):
    """One field, by its name in JSON. `named_only`: an argument that cannot be given by its position."""

    name: str
    type: TypeNode
    required: bool = True
    named_only: bool = False


def to_bytes(node: TypeNode) -> bytes:
    """The tree as it travels in a manifest."""
    return msgspec.msgpack.encode(node)


def from_bytes(data: bytes) -> TypeNode:
    """The tree of a manifest. Raises `msgspec.MsgspecError` when `data` is none."""
    return msgspec.msgpack.decode(data, type=TypeNode)


def kinds_in(node: TypeNode) -> set[TypeKind]:
    """The kinds that occur anywhere in the tree."""
    found: set[TypeKind] = {node.kind}
    for child in (*node.of, *(field.type for field in node.fields)):
        found |= kinds_in(child)
    return found


_PLAIN: dict[TypeKind, Any] = {
    "any": Any,
    "opaque": Any,
    "raw": Any,  # decoding it as a value checks it, where msgspec.Raw would pass 1e999 and bad UTF-8
    "none": None,
    "bool": bool,
    "int": int,
    "float": float,
    "str": str,
    "secret": str,
    "bytes": bytes,
    "datetime": dt.datetime,
    "date": dt.date,
    "time": dt.time,
    "timedelta": dt.timedelta,
    "uuid": uuid.UUID,
    "decimal": decimal.Decimal,
}
_typed_dict: Any = TypedDict  # called with fields that are only known when it is called
_GENERIC: dict[TypeKind, Any] = {
    "list": list,
    "set": list,  # its items need not be hashable to be checked
    "var_tuple": list,
    "tuple": tuple,
    "dict": dict,
    "union": Union,
}


def rebuild(node: TypeNode) -> Any:
    """A type that accepts exactly the JSON that the described type accepts, as far as the tree can say.

    Objects become msgspec Structs, typed dicts and named tuples of their own; nothing is kept outside of them, so
    they go when the checker goes. An opaque type becomes Any. Values of the rebuilt type are of no use but to be
    dropped.
    """
    return _Rebuilder().build_all(node)


class _Rebuilder:
    """One tree; knows the objects built so far."""

    def __init__(self) -> None:
        self._built: dict[str, Any] = {}
        self._makers: dict[str, Callable[[TypeNode], Any]] = {
            "struct": self._struct,
            "typed_dict": self._typed_dict,
            "named_tuple": self._named_tuple,
        }

    def build_all(self, node: TypeNode) -> Any:
        made = self._build(node)
        # msgspec resolves forward references late, and among the attributes of the class that names them.
        for cls in self._built.values():
            for name, target in self._built.items():
                setattr(cls, name, target)
        return made

    def _build(self, node: TypeNode) -> Any:
        if node.kind == "ref":
            return self._built.get(node.name) or ForwardRef(node.name)
        if node.kind in self._makers:
            self._built[node.name] = None  # from here on a ref to it is a forward reference
            made = self._built[node.name] = self._makers[node.kind](node)
            return made
        made = self._value(node)
        limits: dict[str, Any] = node.limits
        return Annotated[made, msgspec.Meta(**limits)] if limits else made

    def _value(self, node: TypeNode) -> Any:
        if node.kind in _PLAIN:
            return _PLAIN[node.kind]
        if node.kind == "literal":
            return Literal[node.values]
        generic = _GENERIC[node.kind]
        parts = tuple(self._build(part) for part in node.of)
        return generic[parts]

    def _struct(self, node: TypeNode) -> Any:
        fields: list[Any] = [
            (f"f{i}", self._build(field.type), *(() if field.required else (None,)))
            for i, field in enumerate(node.fields)
        ]
        return msgspec.defstruct(
            node.name,
            fields,
            rename={f"f{i}": field.name for i, field in enumerate(node.fields)},
            tag_field=node.tag_field,
            tag=node.tag,
            array_like=node.array_like,
            forbid_unknown_fields=node.closed,
            kw_only=True,  # then fields with and without default may stand in any order
        )

    def _typed_dict(self, node: TypeNode) -> Any:
        marked = {}
        for field in node.fields:
            made = self._build(field.type)
            marked[field.name] = Required[made] if field.required else NotRequired[made]
        return _typed_dict(node.name, marked)

    def _named_tuple(self, node: TypeNode) -> Any:
        types = {f"f{i}": self._build(field.type) for i, field in enumerate(node.fields)}
        optional = sum(not field.required for field in node.fields)
        # typing.NamedTuple would take the types, but no defaults.
        make: Callable[..., Any] = collections.namedtuple  # noqa: PYI024
        made = make(node.name, list(types), defaults=[None] * optional)
        made.__annotations__ = types
        return made

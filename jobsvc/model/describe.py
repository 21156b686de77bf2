"""F0: from annotations to the type tree and to JSON Schema: the worker's side of `model.typetree`.

Runs where user code is imported. Looks at annotations only; never makes or reads a value.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import msgspec
from msgspec import inspect as spec

from jobsvc.model.secret import Secret
from jobsvc.model.typetree import FieldNode, TypeKind, TypeNode, kinds_in, rebuild

_PLAIN: dict[type[spec.Type], TypeKind] = {
    spec.AnyType: "any",
    spec.NoneType: "none",
    spec.BoolType: "bool",
    spec.IntType: "int",
    spec.FloatType: "float",
    spec.StrType: "str",
    spec.BytesType: "bytes",
    spec.ByteArrayType: "bytes",
    spec.MemoryViewType: "bytes",
    spec.DateTimeType: "datetime",
    spec.DateType: "date",
    spec.TimeType: "time",
    spec.TimeDeltaType: "timedelta",
    spec.UUIDType: "uuid",
    spec.DecimalType: "decimal",
    spec.RawType: "raw",
    spec.ListType: "list",
    spec.SetType: "set",
    spec.FrozenSetType: "set",
    spec.VarTupleType: "var_tuple",
}
_OBJECTS: dict[type[spec.Type], TypeKind] = {
    spec.StructType: "struct",
    spec.DataclassType: "struct",  # attrs too
    spec.TypedDictType: "typed_dict",
    spec.NamedTupleType: "named_tuple",
}
_LIMITS = ("ge", "gt", "le", "lt", "multiple_of", "pattern", "min_length", "max_length", "tz")

_OPAQUE = TypeNode("opaque")
_SECRET = TypeNode("secret")


def describe(annotation: Any) -> TypeNode:
    """The tree of one annotation; `opaque` where only the worker can check a value.

    Raises:
        TypeError: no value of such a type can be made from JSON, e.g. of a union of two dataclasses without tags,
            or of a class that says nothing about it.
        NameError: it, or a field of it, names a type that is not defined (yet).
    """
    node = _Describer().describe(spec.type_info(annotation))
    if node is not _OPAQUE:
        try:
            msgspec.json.Decoder(rebuild(node))
        except (TypeError, ValueError):
            if "secret" in kinds_in(node):
                raise TypeError("a Secret within a type that only the worker can read") from None
            # What this process can decode need not be expressible in the tree, e.g. two enums side by side whose
            # values are of one type.
            return _OPAQUE
    return node


class _Describer:
    """One tree; knows the objects met so far, so that a type may contain itself."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}  # id of the type info, of which msgspec makes one per class → name

    def describe(self, info: spec.Type) -> TypeNode:
        while isinstance(info, spec.Metadata):
            info = info.type
        if type(info) in _OBJECTS:
            return self._object(info)
        kind = _PLAIN.get(type(info))
        limits = {key: value for key in _LIMITS if (value := getattr(info, key, None)) is not None}
        if kind is not None:
            item = getattr(info, "item_type", None)
            return TypeNode(kind, of=() if item is None else (self.describe(item),), limits=limits)
        if isinstance(info, spec.TupleType):
            return TypeNode("tuple", of=tuple(map(self.describe, info.item_types)))
        if isinstance(info, spec.DictType):
            if getattr(info.key_type, "cls", None) is Secret:
                raise TypeError("a Secret cannot be the key of a dict: keys are shown")
            key_value = (self.describe(info.key_type), self.describe(info.value_type))
            return TypeNode("dict", of=key_value, limits=limits)
        if isinstance(info, spec.UnionType):
            return TypeNode("union", of=tuple(map(self.describe, info.types)))
        return self._named(info)

    def _named(self, info: spec.Type) -> TypeNode:
        """What is a closed set of values, or a class that msgspec does not know."""
        if isinstance(info, spec.LiteralType):
            return TypeNode("literal", values=tuple(info.values))
        if isinstance(info, spec.EnumType):
            if _maker_of_members(info.cls) is not _maker_of_members(enum.Enum):
                return _OPAQUE  # flags, and enums that make members as they are asked for
            return TypeNode("literal", values=tuple(member.value for member in info.cls))
        if isinstance(info, spec.CustomType):
            return self._custom(info.cls)
        return _OPAQUE

    def _custom(self, cls: Any) -> TypeNode:
        if cls is object:
            raise TypeError("object says nothing of JSON; write Any for a value of any kind")
        if cls is Secret:
            return _SECRET
        if made_of_text(cls):
            return TypeNode("str")
        if reads_like_pydantic(cls):
            return _OPAQUE
        raise TypeError(
            f"{getattr(cls, '__qualname__', cls)} cannot be made from JSON; use a plain type, a dataclass, "
            "a msgspec.Struct, a TypedDict, or a class with model_validate and model_json_schema"
        )

    def _object(self, info: Any) -> TypeNode:
        known = self._names.get(id(info))
        if known is not None:
            return TypeNode("ref", name=known)
        # A name of our own, not the class's: it must be unique here, an identifier, and no field's name.
        name = self._names[id(info)] = f"_object_{len(self._names)}"
        fields = tuple(
            FieldNode(field.encode_name, self.describe(field.type), required=field.required)
            for field in info.fields
        )
        return TypeNode(
            _OBJECTS[type(info)],
            fields=fields,
            name=name,
            tag_field=getattr(info, "tag_field", None),
            tag=getattr(info, "tag", None),
            array_like=getattr(info, "array_like", False),
            closed=getattr(info, "forbid_unknown_fields", False),
        )


def _maker_of_members(cls: Any) -> Any:
    """The function that an enum asks for a value that no member has."""
    return getattr(cls._missing_, "__func__", None)


# -- JSON Schema --------------------------------------------------------------------------------------------------


def made_of_text(cls: Any) -> bool:
    """Whether `cls` is a path class: its values are made from a string."""
    return isinstance(cls, type) and issubclass(cls, PurePath)


def reads_like_pydantic(cls: Any) -> bool:
    """Whether `cls` is a model of pydantic, or behaves like one: it checks and describes itself."""
    return callable(getattr(cls, "model_validate", None)) and callable(
        getattr(cls, "model_json_schema", None)
    )


def schema(annotation: Any) -> dict[str, Any]:
    """JSON Schema (2020-12) of one annotation, complete in itself.

    A type that can only be written, not read, has the schema `{}`: anything.
    """
    made: dict[str, Any] = msgspec.json.schema(annotation, schema_hook=_schema_of_class)
    return _hoisted(made)


def args_schema(args_type: type[msgspec.Struct], title: str) -> dict[str, Any]:
    """JSON Schema of a signature, given as the Struct that decodes its arguments by name."""
    whole = schema(args_type)
    definitions: dict[str, Any] = whole.get("$defs", {})
    own: dict[str, Any] = definitions.pop(whole["$ref"].rpartition("/")[2])
    own["title"] = title
    return own | ({"$defs": definitions} if definitions else {})


def _schema_of_class(cls: type) -> dict[str, Any]:
    if reads_like_pydantic(cls):
        make: Callable[[], dict[str, Any]] = cls.model_json_schema  # type: ignore[attr-defined]
        return make()
    if made_of_text(cls):
        return {"type": "string", "format": "path"}
    if cls is Secret:
        return {"type": "string", "format": "password", "writeOnly": True}
    return {}


def _hoisted(whole: dict[str, Any]) -> dict[str, Any]:
    """The schema with the `$defs` of embedded models moved to its root, where their references point.

    Of two different definitions of one name the first stays; the schema is for people and clients, the models check
    themselves.
    """
    found: dict[str, Any] = {}

    def strip(part: Any) -> Any:
        if isinstance(part, dict):
            definitions = part.get("$defs")
            for name, definition in definitions.items() if isinstance(definitions, dict) else ():
                found.setdefault(name, strip(definition))
            return {key: strip(value) for key, value in part.items() if key != "$defs"}
        return [strip(value) for value in part] if isinstance(part, list) else part

    bare: dict[str, Any] = strip(whole)
    return bare | ({"$defs": found} if found else {})

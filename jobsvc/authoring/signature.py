"""F1: the signature of a task: its arguments, where its context goes, what it gives.

Arguments are JSON by name or by position, so a signature must name each of them: `*args` and `**kwargs` are refused;
a parameter of type `dict` takes what is open.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from jobsvc.authoring.context import Context
from jobsvc.authoring.results import type_name
from jobsvc.model.describe import args_schema, describe, made_of_text, reads_like_pydantic, schema
from jobsvc.model.secret import Secret
from jobsvc.model.types import ArgsError, ArgsReader, signature_node
from jobsvc.model.typetree import FieldNode, TypeNode

Namespace = Mapping[str, Any]

_JSON_NAMES: dict[type, str] = {
    bool: "bool", int: "int", float: "float", list: "array", dict: "object", type(None): "null",
}  # fmt: skip
_GENERATORS = {"Iterator", "Iterable", "Generator", "AsyncIterator", "AsyncIterable", "AsyncGenerator"}
_WRAPPERS = {"Deferred", "Awaitable", "Future", "Task"}
_RETURN_OF_GENERATOR = 2
"""Generator[item, sent, returned]."""
MODEL_ERRORS_SHOWN = 3
"""A model reports all that is wrong; so much of it goes into one sentence."""


def parameters_of(fn: Callable[..., Any]) -> tuple[inspect.Parameter, ...]:
    """The parameters of a function that can be a task.

    Raises:
        TypeError: it takes `*args` or `**kwargs`, is a method, or does not tell its signature.
    """
    try:
        found = tuple(inspect.signature(fn).parameters.values())
    except ValueError as error:
        raise TypeError(f"its signature cannot be read: {error}") from None
    for at, parameter in enumerate(found):
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            raise TypeError(
                f"it takes {parameter}; the arguments of a task have names: use a parameter of type list or dict"
            )
        if at == 0 and parameter.name in {"self", "cls"} and parameter.annotation is parameter.empty:
            raise TypeError("it is a method; a task is a function of a module")
    return found


class Signature:
    """A signature whose annotations have been resolved.

    Args:
        fn: the function.
        names: names beside those of its module in which annotations are looked up.

    Raises:
        TypeError: a parameter has a type that cannot be made from JSON; names the parameter.
        NameError: an annotation names something that is not defined (yet).
    """

    def __init__(self, fn: Callable[..., Any], names: Namespace) -> None:
        space = _namespace(fn, names)
        self._context_at: int | None = None  # place among the positional parameters
        self._context_name: str | None = None  # when it is keyword-only
        self._positional = 0
        named: list[str] = []
        fields: list[FieldNode] = []
        annotations: list[Any] = []
        defaults: list[Any] = []
        for at, parameter in enumerate(parameters_of(fn)):
            by_name_only = parameter.kind is parameter.KEYWORD_ONLY
            annotation = _resolved(parameter, space)
            if _is_context(annotation):
                self._place_context(parameter, at)
                continue
            required = parameter.default is parameter.empty
            fields.append(_field(parameter, annotation, required=required))
            annotations.append(annotation)
            defaults.append(parameter.default)
            if by_name_only:
                named.append(parameter.name)
            else:
                self._positional += 1
        self._named = tuple(named)
        self.node: TypeNode = signature_node(fields)
        self._reader = ArgsReader(self.node, annotations, defaults, make_value)
        self._read = self._reader.read
        self._returns = _result_annotation(fn, space)

    @property
    def wants_context(self) -> bool:
        """Whether one of the parameters is a `Context`."""
        return self._context_at is not None or self._context_name is not None

    def bind(self, args_json: bytes) -> tuple[list[Any], dict[str, Any]]:
        """Positional and keyword arguments, without the context. Raises `ArgsError`."""
        try:
            values = self._read(args_json)
        except ArgsError:
            raise
        except Exception as error:  # an author's own __post_init__; of ValueError msgspec tells the place
            raise ArgsError("", f"{type_name(error)}: {error}") from error
        if not self._named:
            return list(values), {}
        return list(values[: self._positional]), dict(
            zip(self._named, values[self._positional :], strict=False)
        )

    def inject(self, context: Context, args: list[Any], kwargs: dict[str, Any]) -> None:
        """Put the context where the function wants it; nothing when it wants none."""
        if self._context_at is not None:
            args.insert(self._context_at, context)
        elif self._context_name is not None:
            kwargs[self._context_name] = context

    def args_schema(self, title: str) -> dict[str, Any]:
        """JSON Schema of the arguments by name."""
        return args_schema(self._reader.struct, title)

    def result_schema(self) -> dict[str, Any]:
        """JSON Schema of what the hint says; `{}` where it says nothing that has one: results are not checked."""
        try:
            return schema(self._returns)
        except (TypeError, NameError, ValueError):
            return {}

    def _place_context(self, parameter: inspect.Parameter, at: int) -> None:
        if self.wants_context:
            raise TypeError(f"parameter {parameter.name}: a second Context; one is enough")
        if parameter.kind is parameter.KEYWORD_ONLY:
            self._context_name = parameter.name
        else:
            self._context_at = at


def make_value(cls: type, value: Any) -> Any:
    """A value of a class that msgspec does not know: its `dec_hook`. Raises ValueError when it does not fit."""
    if reads_like_pydantic(cls):
        try:
            return cls.model_validate(value)  # type: ignore[attr-defined]
        except Exception as error:
            raise ValueError(_model_errors(error)) from error
    if made_of_text(cls):
        if not isinstance(value, str):
            raise ValueError(f"Expected `str`, got `{_JSON_NAMES[type(value)]}`")
        return cls(value)
    if get_origin(cls) is Secret or cls is Secret:
        if not isinstance(value, str):
            raise ValueError(f"Expected `str`, got `{_JSON_NAMES[type(value)]}`")
        return Secret(value)
    raise AssertionError(f"`describe` has refused {cls}")


def _model_errors(error: Exception) -> str:
    """What a model found wrong, shortly: pydantic's own text goes over many lines, with links."""
    details = getattr(error, "errors", None)
    try:
        found = details() if callable(details) else []
        parts = [f"{'.'.join(map(str, one['loc'])) or 'value'}: {one['msg']}" for one in found]
    except (TypeError, LookupError):
        parts = []
    if len(parts) > MODEL_ERRORS_SHOWN:
        parts[MODEL_ERRORS_SHOWN:] = ["…"]
    return "; ".join(parts) or f"{type(error).__name__}: {error}"


# -- annotations --------------------------------------------------------------------------------------------------


def _namespace(fn: Callable[..., Any], names: Namespace) -> dict[str, Any]:
    """Where the annotations of `fn` are looked up. `Context` is there even when imported for type checkers only."""
    inner: Any = inspect.unwrap(fn)
    while isinstance(inner, functools.partial):
        inner = inspect.unwrap(inner.func)
    space = getattr(getattr(inner, "__func__", inner), "__globals__", {})
    return {"Context": Context, "jobsvc": sys.modules.get("jobsvc"), **space, **names}


def _evaluated(annotation: Any, space: Namespace) -> Any:
    def holder() -> None: ...

    holder.__annotations__ = {"it": annotation}
    return get_type_hints(holder, dict(space), include_extras=True)["it"]


def _resolved(parameter: inspect.Parameter, space: Namespace) -> Any:
    if parameter.annotation is parameter.empty:
        return Any
    try:
        return _evaluated(parameter.annotation, space)
    except (TypeError, SyntaxError, AttributeError) as error:
        raise TypeError(
            f"parameter {parameter.name}: annotation {parameter.annotation!r}: {error}"
        ) from error
    except NameError as error:
        raise NameError(
            f"parameter {parameter.name}: annotation {parameter.annotation!r}: {error}"
        ) from error


def _field(parameter: inspect.Parameter, annotation: Any, *, required: bool) -> FieldNode:
    try:
        node = describe(annotation)
    except (TypeError, RecursionError) as error:
        raise TypeError(f"parameter {parameter.name}: {error}") from error
    except NameError as error:
        raise NameError(f"parameter {parameter.name}: {error}") from error
    named_only = parameter.kind is parameter.KEYWORD_ONLY
    return FieldNode(parameter.name, node, required=required, named_only=named_only)


def _is_context(annotation: Any) -> bool:
    """`Context`, or that and None."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in {Union, types.UnionType}:
        parts = [part for part in get_args(annotation) if part is not type(None)]
        return len(parts) == 1 and _is_context(parts[0])
    return isinstance(annotation, type) and issubclass(annotation, Context)


def _result_annotation(fn: Callable[..., Any], space: Namespace) -> Any:
    """What the task gives in the end: of a generator what it returns, of a Deferred what it fires with."""
    if inspect.isasyncgenfunction(fn):
        return None
    written = getattr(inspect.unwrap(fn), "__annotations__", {}).get("return", Any)
    try:
        found = _evaluated(written, space)
    except (TypeError, SyntaxError, AttributeError, NameError):
        return Any
    name = getattr(get_origin(found), "__name__", "")
    args = get_args(found)
    if name in _GENERATORS:
        return (
            args[_RETURN_OF_GENERATOR] if name == "Generator" and len(args) > _RETURN_OF_GENERATOR else None
        )
    if name in _WRAPPERS and args:
        return args[0]
    return found

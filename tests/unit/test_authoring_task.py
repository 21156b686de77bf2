"""`@task`: what it refuses and how it says so, what a decorated function still is, what the daemon learns of it."""

from __future__ import annotations

import functools
import inspect
import json
import pathlib
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Optional

import msgspec
import pytest

import jobsvc
from jobsvc import Context, task
from jobsvc.model.limits import DURATION_MAX_S
from jobsvc.model.task import Backoff, Port, Timeouts
from tests.unit.authoring_harness import CONTEXT, call, refusal

if TYPE_CHECKING:
    from jobsvc import Context as OnlyForTypeCheckers


@task
def thumbnail(path: str, width: int = 200) -> dict[str, Any]:
    """Make it small.

    A second paragraph that is not for lists.
    """
    return {"path": path, "width": width}


# -- what it stays ------------------------------------------------------------------------------------------------


def test_decorated_function_is_still_that_function() -> None:
    assert thumbnail("a.png", width=3) == {"path": "a.png", "width": 3}
    assert thumbnail.__name__ == "thumbnail"
    assert thumbnail.__doc__ is not None
    assert thumbnail.__module__ == __name__
    assert list(inspect.signature(thumbnail).parameters) == ["path", "width"]
    with pytest.raises(TypeError):
        thumbnail()  # type: ignore[call-arg]


def test_with_and_without_arguments() -> None:
    @task(name="other.name-1", executor="process")
    def one() -> int:
        return 1

    @task()
    def two() -> int:
        return 2

    assert (one(), one.name, one.executor) == (1, "other.name-1", "process")
    assert (two(), two.name, two.executor) == (2, "two", "thread")


def test_public_names_are_lazy_and_closed() -> None:
    assert {"Context", "command", "task"} <= set(jobsvc.__all__) <= set(dir(jobsvc))
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        jobsvc.nonsense  # type: ignore[attr-defined]  # noqa: B018


# -- what it refuses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"name": 3}, TypeError, "name must be a str, not 3"),
        ({"name": "1st"}, ValueError, "name must be 1 to 128 letters"),
        ({"name": "a" * 129}, ValueError, "name must be"),
        ({"name": "a b"}, ValueError, "name must be"),
        ({"name": "a\n"}, ValueError, "name must be"),
        ({"name": ""}, ValueError, "name must be"),
        ({"executor": "fiber"}, ValueError, "executor must be one of loop, thread, process, not 'fiber'"),
        ({"executor": "command"}, ValueError, "command(…)"),
        ({"executor": []}, ValueError, "executor must be one of"),
        ({"timeout": 0}, ValueError, "timeout must be above 0"),
        ({"timeout": -1.5}, ValueError, "timeout must be above 0"),
        ({"timeout": float("nan")}, ValueError, "timeout must be"),
        ({"timeout": float("inf")}, ValueError, "timeout must be"),
        ({"timeout": DURATION_MAX_S * 2}, ValueError, "timeout must be above 0 and up to"),
        (
            {"timeout": "60"},
            TypeError,
            "timeout must be a number of seconds or a mapping with run, idle, total",
        ),
        ({"timeout": True}, TypeError, "timeout must be a number"),
        ({"timeout": {"walk": 1}}, ValueError, "timeout knows run, idle, total, not 'walk'"),
        ({"timeout": {"run": "1"}}, TypeError, "timeout['run'] must be a number"),
        ({"retries": -1}, ValueError, "retries must be from 0 to 1000, not -1"),
        ({"retries": 10**9}, ValueError, "retries must be"),
        ({"retries": 1.0}, TypeError, "retries must be an integer, not 1.0"),
        ({"retries": True}, TypeError, "retries must be an integer"),
        (
            {"backoff": 5},
            TypeError,
            "backoff must be a tuple (base_s, max_s) or a mapping with base_s, max_s",
        ),
        ({"backoff": (1,)}, ValueError, "backoff as a tuple is"),
        ({"backoff": {"base": 1}}, ValueError, "backoff knows base_s, max_s, not 'base'"),
        ({"backoff": {"base_s": -1}}, ValueError, "backoff['base_s'] must be from 0"),
        ({"backoff": (10, 1)}, ValueError, "max_s (1) must not be below base_s (10)"),
        ({"queue": ""}, ValueError, "queue must be"),
        ({"queue": None}, TypeError, "queue must be a str"),
        ({"priority": 101}, ValueError, "priority must be from -100 to 100, not 101"),
        ({"priority": "high"}, TypeError, "priority must be an integer"),
        ({"concurrency": 0}, ValueError, "concurrency must be at least 1, not 0"),
        ({"concurrency": 1.5}, TypeError, "concurrency must be an integer"),
        ({"on_lost": "ignore"}, ValueError, "on_lost must be 'retry' or 'fail', not 'ignore'"),
    ],
    ids=str,
)
def test_wrong_value_is_refused_where_it_is_written(
    arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    """By the name of the argument, with what is allowed and what it was."""
    with pytest.raises(error) as refused:
        task(**arguments)(thumbnail.fn)
    assert words in str(refused.value)


def test_unknown_argument_of_the_decorator() -> None:
    with pytest.raises(TypeError, match="retires"):
        task(retires=3)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        (int, "@task goes on a function"),
        ("name", "given by name: @task(name=…)"),
        (3, "@task goes on a function"),
        (staticmethod(lambda: 1), "not on a method"),
        (thumbnail, "is a task already"),
        (functools.partial(print), "name must be a str"),
    ],
)
def test_what_is_no_function_is_refused(thing: Any, words: str) -> None:
    with pytest.raises(TypeError) as refused:
        task(thing)
    assert words in str(refused.value)


def test_lambda_needs_a_name() -> None:
    with pytest.raises(ValueError, match="name must be"):
        task(lambda: 1)
    assert task(name="one")(lambda: 1)() == 1


def star(*args: int) -> None: ...
def stars(**kwargs: int) -> None: ...
def method(self, a: int) -> None: ...  # type: ignore[no-untyped-def]
def two_contexts(a: Context, b: Context) -> None: ...
def stranger(a: int, odd: pathlib.Path | int) -> None: ...
def nothing_like_it(odd: Callable[[], int]) -> None: ...
def no_hint(odd: object) -> None: ...
def no_hint_inside(odd: list[object]) -> None: ...
def bad_text(odd: "int |") -> None: ...  # type: ignore[valid-type]  # noqa: F722


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (star, "it takes *args: "),
        (stars, "use a parameter of type list or dict"),
        (method, "it is a method"),
        (two_contexts, "parameter b: a second Context"),
        (stranger, "parameter odd: "),
        (nothing_like_it, "parameter odd: Callable cannot be made from JSON"),
        (no_hint, "parameter odd: object says nothing of JSON; write Any"),
        (no_hint_inside, "parameter odd: object says nothing of JSON; write Any"),
        (bad_text, "parameter odd: annotation"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_signature_that_cannot_be_a_task(fn: Any, words: str) -> None:
    with pytest.raises(TypeError) as refused:
        task(fn)
    assert str(refused.value).startswith(f"task {fn.__name__!r}: ")
    assert words in str(refused.value)


# -- where it runs ------------------------------------------------------------------------------------------------


def plain() -> int:
    return 1


async def coroutine() -> int:
    return 1


def generator() -> Iterator[int]:
    yield 1


async def stream() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("fn", "kind", "default", "allowed"),
    [
        (plain, "function", "thread", {"loop", "thread", "process"}),
        (coroutine, "coroutine", "loop", {"loop"}),
        (generator, "generator", "thread", {"thread", "process"}),
        (stream, "async_generator", "loop", {"loop"}),
    ],
)
def test_executor_follows_the_kind_of_function(fn: Any, kind: str, default: str, allowed: set[str]) -> None:
    made = task(fn)
    assert (made.kind, made.executor) == (kind, default)
    assert made.streams == made.kind.endswith("generator")
    assert made.spec().ports == ((Port("out", "out"),) if made.streams else ())
    for executor in ("loop", "thread", "process"):
        if executor in allowed:
            assert task(executor=executor)(fn).executor == executor
        else:
            with pytest.raises(ValueError, match=f"executor='{executor}' does not run an? .*; use "):
                task(executor=executor)(fn)


def test_policy_reaches_the_spec() -> None:
    @task(
        timeout={"run": 5, "idle": 2.5}, retries=3, backoff=(0.5, 20), queue="slow", priority=-7, concurrency=4,
        on_lost="fail",
    )  # fmt: skip
    def one(a: int) -> None: ...

    spec = one.spec()
    assert (spec.queue, spec.priority, spec.concurrency) == ("slow", -7, 4)
    assert spec.policy.max_attempts == 4
    assert spec.policy.backoff == Backoff(0.5, 20)
    assert spec.policy.timeouts == Timeouts(run=5, idle=2.5)
    assert spec.policy.on_lost == "fail"
    assert task(timeout=60)(plain).spec().policy.timeouts == Timeouts(run=60)
    assert task(backoff={"max_s": 9})(plain).spec().policy.backoff == Backoff(1, 9)
    assert task(timeout=Timeouts(total=9), backoff=Backoff(2, 3))(plain).spec().policy.timeouts.total == 9


def test_spec_of_a_plain_task() -> None:
    spec = thumbnail.spec()
    assert (spec.name, spec.doc, spec.module) == ("thumbnail", "Make it small.", __name__)
    assert json.loads(spec.args_schema) == {
        "title": "thumbnail",
        "type": "object",
        "properties": {"path": {"type": "string"}, "width": {"type": "integer", "default": 200}},
        "required": ["path"],
        "additionalProperties": False,
    }
    assert json.loads(spec.result_schema) == {"type": "object"}
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=type(spec)) == spec


def test_result_schema_is_of_what_the_job_gives() -> None:
    def schema_of(fn: Any) -> Any:
        return json.loads(task(fn).spec().result_schema)

    def counted() -> Generator[str, None, int]:
        yield "a"
        return 1

    def later() -> Awaitable[int]:
        return coroutine()

    def unwritable() -> Callable[[], int]:
        return plain

    def unnamed() -> Nowhere: ...  # type: ignore[name-defined]  # noqa: F821
    def untold(): ...  # type: ignore[no-untyped-def]

    assert schema_of(coroutine) == {"type": "integer"}
    assert schema_of(generator) == {"type": "null"}
    assert schema_of(stream) == {"type": "null"}
    assert schema_of(counted) == {"type": "integer"}
    assert schema_of(later) == {"type": "integer"}
    assert [schema_of(fn) for fn in (unwritable, unnamed, untold)] == [{}, {}, {}]


# -- the context --------------------------------------------------------------------------------------------------


@task
def first(ctx: Context, a: int, b: int = 2) -> list[Any]:
    return [ctx, a, b]


@task
def middle(a: int, ctx: Context, b: int = 2) -> list[Any]:
    return [a, ctx, b]


@task
def optional(a: int, ctx: Context | None = None) -> list[Any]:
    return [a, ctx]


@task
def old_optional(a: int, ctx: Optional[Context] = None) -> list[Any]:  # noqa: UP045
    return [a, ctx]


@task
def named(a: int, *, b: int = 2, ctx: Context) -> list[Any]:
    return [a, b, ctx]


@task
def quoted(ctx: "jobsvc.Context", a: int) -> list[Any]:  # noqa: UP037
    return [ctx, a]


@task
def annotated(ctx: Annotated[Context, "note"], a: int) -> list[Any]:
    return [ctx, a]


def test_context_goes_where_it_is_annotated_and_is_no_argument() -> None:
    assert call(first, {"a": 1}) == [CONTEXT, 1, 2]
    assert call(first, [1, 3]) == [CONTEXT, 1, 3]
    assert call(middle, {"b": 5, "a": 1}) == [1, CONTEXT, 5]
    assert call(middle, [1]) == [1, CONTEXT, 2]
    assert call(optional, {"a": 1}) == call(old_optional, [1]) == [1, CONTEXT]
    assert call(named, {"a": 1}) == call(named, [1]) == [1, 2, CONTEXT]
    assert call(quoted, [1]) == call(annotated, [1]) == [CONTEXT, 1]
    for each in (first, middle, optional, old_optional, named, quoted, annotated):
        assert each.wants_context
        assert "ctx" not in json.loads(each.spec().args_schema)["properties"]
        assert refusal(each, b'{"a":1,"ctx":{}}')[0] == "/ctx"
    assert not thumbnail.wants_context


def test_context_imported_for_type_checkers_only(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linters move such an import there."""
    text = "from __future__ import annotations\nfrom typing import TYPE_CHECKING\nfrom jobsvc import task\n"
    text += "if TYPE_CHECKING:\n    from jobsvc import Context\n"
    text += "@task\ndef f(ctx: Context | None, a: int):\n    return ctx, a\n"
    space: dict[str, Any] = {"__name__": "made"}
    exec(text, space)
    assert call(space["f"], [1]) == (CONTEXT, 1)


def test_context_under_another_name_for_type_checkers_is_named_in_the_error() -> None:
    @task
    def lost(ctx: OnlyForTypeCheckers, a: int) -> None: ...

    with pytest.raises(NameError, match=r"task 'lost': parameter ctx: annotation 'OnlyForTypeCheckers'"):
        lost.spec()

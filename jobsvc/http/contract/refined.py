"""F3: what msgspec cannot know of the shapes: members kept as encoded text, closed lists of words, and the lines of
streams. Plain JSON Schema, laid over or beside what is made from the types.
"""  # fmt: skip

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobsvc.model.errors import KINDS
from jobsvc.model.job import NAME_PATTERN
from jobsvc.model.limits import LABEL_VALUE_MAX_CHARS, LABELS_MAX
from jobsvc.model.states import REASONS, STATES
from jobsvc.model.task import EXECUTORS

Schema = Mapping[str, Any]


def ref(name: str) -> dict[str, str]:
    """A reference to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


def _or_null(schema: Schema) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _record(doc: str, **members: Schema) -> dict[str, Any]:
    """An object whose members are always all there."""
    return {"type": "object", "description": doc, "properties": members, "required": list(members)}


def _words(*words: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(words)}


_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_NUMBER: Schema = {"type": "integer", "minimum": 1}
_TIME: Schema = {"type": "string", "format": "date-time", "description": "UTC, microseconds."}
_UUID: Schema = {"type": "string", "format": "uuid"}
_ANY = "Any JSON."
_STATE: Schema = {**_words(*STATES), "description": "See the part on states."}
_REASON: Schema = {
    "anyOf": [_words(*REASONS), {"type": "null"}],
    "description": "Why it is in this state, where that needs saying.",
}
_ERROR: Schema = {**_or_null(ref("JobError")), "description": "Set in every final state but succeeded."}
_EXECUTOR: Schema = {
    "type": "string",
    "examples": list(EXECUTORS),
    "description": "Where it runs; GET /v1/executors lists them, and says what each can do.",
}
_LABEL_KEY = r"^[A-Za-z_][A-Za-z0-9_.-]{0,62}$"
LABELS: Schema = {
    "type": "object",
    "maxProperties": LABELS_MAX,
    "propertyNames": {"pattern": _LABEL_KEY},
    "additionalProperties": {
        "type": "string",
        "maxLength": LABEL_VALUE_MAX_CHARS,
        "pattern": r"^[^\x00-\x1f\x7f-\x9f]*$",
    },
    "description": "The client's own marks, to find jobs by.",
}

MEMBERS: Mapping[str, Mapping[str, Schema]] = {
    "Problem": {
        "type": {"format": "uri", "description": "urn:jobsvc:problem: and the code."},
        "status": {"minimum": 400, "maximum": 599},
        "source": {"enum": ["client", "service", "job"]},
        "retry_after_s": {"description": "Seconds; Retry-After holds them as a whole number."},
        "job": {"format": "uuid", "description": "Id of the job it is about."},
        "error": {"description": "With job_failed: why the job has no result."},
    },
    "Job": {
        "id": {**_UUID, "description": "UUIDv7: ids grow with time."},
        "task": {"description": "Name of the task."},
        "args": {"description": "The arguments as they were sent."},
        "executor": _EXECUTOR,
        "priority": {"description": "Larger first."},
        "labels": LABELS,
        "state": _STATE,
        "done": {"description": "Whether the state is final: it will never change again."},
        "reason": _REASON,
        "revision": {**_NUMBER, "description": "Grows with every change of state or progress; the ETag."},
        "epoch": {**_COUNT, "description": "How often it was given to a worker."},
        "attempt": {**_COUNT, "description": "Tries that count against max_attempts; 0 before the first."},
        "max_attempts": {**_NUMBER, "description": "retries + 1."},
        "on_lost": {"enum": ["retry", "fail"]},
        "created_at": _TIME,
        "run_at": _or_null(_TIME),
        "expires_at": _or_null(_TIME),
        "started_at": _or_null(_TIME),
        "finished_at": _or_null(_TIME),
        "progress": _or_null(ref("Progress")),
        "result": {"description": "What the task returned; null until then. " + _ANY},
        "error": _ERROR,
        "durability": {
            **_words("power", "process", "memory"),
            "description": "What a stored job survives: a power cut; a crash of the daemon; nothing.",
        },
        "parent": _or_null({**_UUID, "description": "The job that submitted it."}),
        "rerun_of": _or_null({**_UUID, "description": "The job of which it is a retry."}),
        "links": ref("Links"),
    },
    "Attempt": {
        "epoch": _NUMBER,
        "attempt": _COUNT,
        "state": {"description": "How it ended, or how it stands: a state, or the reason it runs again."},
        "began_at": _or_null(_TIME),
        "finished_at": _or_null(_TIME),
        "error": _or_null(ref("JobError")),
    },
    "JobError": {
        "kind": {"enum": sorted(KINDS), "description": "See the part on results and errors."},
        "type": {"description": "Name of the Python exception; null when there was none."},
        "message": {"description": "For people; at most 4,096 characters."},
        "retryable": {"description": "Whether another try could end otherwise."},
        "exit": {"description": "How its process ended, when that is what ended it."},
    },
    "Exit": {
        "code": {"description": "Exit status."},
        "signal": {"description": "Number of the signal."},
        "oom": {"description": "Whether the kernel killed it for want of memory; null: not known."},
    },
    "Task": {
        "args_schema": {"type": ["object", "boolean"], "description": "JSON Schema of args."},
        "result_schema": {"type": ["object", "boolean"], "description": "JSON Schema of the result."},
        "executor": _EXECUTOR,
        "concurrency": {"description": "Attempts that may run at once; null = as many as there is room."},
        "uses": {"description": "Names of resources it uses."},
    },
    "Submit": {
        "task": {"description": "Name of a task; GET /v1/tasks lists them."},
        "args": ref("Args"),
        "key": {
            "description": "Idempotency key, the same as the header; both and different is refused.",
        },
        "queue": {"description": "Default: the task's own."},
        "priority": {"description": "Larger first; default: the task's own."},
        "run_at": {
            "description": "Not before this time, which needs a zone and is at most a year ahead. Not with delay_s.",
        },
        "delay_s": {"description": "Not before so many seconds have passed."},
        "expires_at": {
            "description": "Not begun until then: it ends as expired. After now, and after run_at."
        },
        "timeouts": {
            "description": "What is left out comes from the task; null takes the task's away.",
        },
        "retries": {"description": "Further tries after a failure; default: the task's own."},
        "on_lost": {
            "description": "When a worker is lost with it: run it again, or (at most once) let it fail.",
        },
        "labels": LABELS,
    },
    "Cancel": {
        "mode": {
            "description": "polite asks and never kills; deadline asks, and kills after grace_s; now kills at once.",
        },
        "grace_s": {"description": "Seconds; used by mode deadline."},
    },
    "Worker": {"started_at": _or_null(_TIME), "rss": {"description": "Resident bytes."}},
    "Info": {
        "started_at": _TIME,
        "durability": _words("power", "process", "memory"),
        "boot": {"description": "Changes with every start of the daemon."},
        "tasks": {"description": "How many there are."},
        "draining": {"description": "It is stopping and takes no new jobs."},
    },
}
"""Laid over members of what is made from the types: component → member → keywords."""

EXCLUSIVE: Mapping[str, tuple[str, str]] = {
    "Submit": ("run_at", "delay_s"),
    "TokenIn": ("expires_at", "ttl_s"),
}
"""Two members that do not go together."""

_EVENT_HEAD: Mapping[str, Schema] = {
    "seq": {**_NUMBER, "description": "Number of the event in its job, from 1 on."},
    "at": _TIME,
}


def _event(kind: str, data: Schema, **more: Schema) -> dict[str, Any]:
    return {
        "type": "object",
        "title": kind,
        "properties": {**_EVENT_HEAD, "kind": {"const": kind}, "data": data, **more},
        "required": ["seq", "at", "kind", "data", *more],
    }


_LOG = _record(
    "One line of output.",
    level=_words("debug", "info", "warning", "error"),
    message=_TEXT,
    fields={"type": "object"},
    source=_words("task", "stdout", "stderr"),
)
_GAP = _record(
    "Numbers that are no longer kept.",
    **{"from": _NUMBER, "to": _NUMBER, "why": {**_TEXT, "description": "quota: the oldest had to go."}},
)
_MOVE = _record(
    "How the job now stands.", state=_STATE, reason=_REASON, attempt=_COUNT, epoch=_COUNT, revision=_NUMBER
)

COMPONENTS: Mapping[str, Schema] = {
    "Args": {
        "type": ["object", "array"],
        "description": "Arguments by name, or in order; none when left out. They must fit args_schema of the task.",
    },
    "Links": _record(
        "Paths of what belongs to the job, without scheme and host.",
        self={**_TEXT, "format": "uri-reference"},
        result={**_TEXT, "format": "uri-reference"},
        events={**_TEXT, "format": "uri-reference"},
        out={**_TEXT, "format": "uri-reference"},
    ),
    "Progress": _record(
        "How far it is, as the task last said.",
        n={"type": "number"},
        of=_or_null({"type": "number"}),
        note=_or_null(_TEXT),
    ),
    "Event": {
        "description": (
            "One event of a job: a line of NDJSON, or the data of an SSE message whose event is `kind` and whose id "
            "is `seq`. gap and end carry the last number before them and have no SSE id."
        ),
        "oneOf": [
            _event("job", ref("Job")),
            _event("state", _MOVE),
            _event("progress", ref("Progress")),
            _event("log", _LOG),
            _event(
                "item",
                {"description": _ANY},
                stream={**_TEXT, "description": "Name of its stream."},
                n={**_NUMBER, "description": "Its number in that stream."},
            ),
            _event("gap", _GAP),
            _event("end", ref("Job")),
        ],
    },
    "Item": {
        "description": "One line of a stream: an item, a mark that a further attempt begins, or a gap.",
        "oneOf": [
            _record(
                "An item.",
                seq={**_NUMBER, "description": "Its number in the stream, going on over attempts."},
                epoch={**_NUMBER, "description": "Of the attempt that gave it."},
                data={"description": _ANY},
            ),
            _record(
                "What comes next is from a further attempt, which began anew. SSE event: restart.",
                seq=_NUMBER,
                epoch=_NUMBER,
                restart={"const": True},
            ),
            _record(
                "Numbers that are no longer kept. SSE event: gap.",
                seq=_NUMBER,
                kind={"const": "gap"},
                data=_GAP,
            ),
        ],
    },
    "BulkAnswer": {
        "description": (
            "One line of the reply to a bulk upload. The answers come first, one for each line that was not blank, in "
            "order; with follow=out, outcomes come behind them, one as each job ends."
        ),
        "anyOf": [
            {
                **_record("The line was accepted.", line=_NUMBER, id=_UUID),
                "properties": {
                    "line": _NUMBER,
                    "id": _UUID,
                    "job": {
                        **_or_null(ref("Job")),
                        "description": "With full=1: the job as it was stored; null if it is gone again.",
                    },
                },
            },
            _record("The line was refused; the others were not.", line=_NUMBER, problem=ref("Problem")),
            _record(
                "Its job is done.",
                line=_NUMBER,
                id=_UUID,
                state=_words("succeeded", "failed", "cancelled", "expired"),
                result={"description": _ANY},
                error=_ERROR,
            ),
        ],
    },
}
"""Shapes that no type stands for."""

NAME: Schema = {"type": "string", "pattern": NAME_PATTERN}
UUID = _UUID
ROW_LEAVES_OUT = ("args", "result")
"""Members of a job that rows of a list have only when they are asked for."""

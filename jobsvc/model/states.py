"""F0: the states of a job and the only ways between them, as one table that prints its own diagram."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, get_args

State = Literal[
    "scheduled", "blocked", "held", "queued", "retrying",
    "running", "stopping",
    "succeeded", "failed", "cancelled", "expired",
]  # fmt: skip
STATES: Final[tuple[State, ...]] = get_args(State)
WAITING: Final[tuple[State, ...]] = ("scheduled", "blocked", "held", "queued", "retrying")
ACTIVE: Final[tuple[State, ...]] = ("running", "stopping")
FINAL: Final[frozenset[State]] = frozenset(("succeeded", "failed", "cancelled", "expired"))

Reason = Literal[
    "cancel_asked", "deadline", "drained", "lost", "module_broken", "no_such_task", "operator", "orphan_running",
    "recalled", "reload", "retry", "run_at", "snoozed", "timeout",
]  # fmt: skip
"""Why a job is in its state, when that needs saying; `null` otherwise."""
REASONS: Final[tuple[str, ...]] = get_args(Reason)


class Transition(NamedTuple):
    """One way from `frm` (None = not there yet) to `to` (None = row gone), who may take it, and its guard."""

    frm: State | None
    to: State | None
    who: str
    guard: str


def _ways() -> tuple[Transition, ...]:
    rows: list[Transition] = [Transition(None, to, "submit", "unique key per tenant; limits")
                              for to in ("scheduled", "blocked", "queued", "running")]  # fmt: skip
    rows += [Transition(frm, "queued", "timer", "run_at reached") for frm in ("scheduled", "retrying")]
    rows += [Transition(frm, "queued", "operator", "run now") for frm in ("scheduled", "retrying")]
    rows.append(Transition("blocked", "queued", "grant", "permit, dependency or turn granted"))
    rows += [
        Transition(frm, "held", "operator", "hold") for frm in ("scheduled", "blocked", "queued", "retrying")
    ]
    rows.append(Transition("held", "queued", "operator", "release"))
    rows.append(
        Transition("queued", "running", "dispatcher", "epoch := epoch + 1, durable before the worker is told")
    )
    rows.append(Transition("running", "queued", "recall", "handed over but never begun; counts for nothing"))
    rows.append(Transition("running", "succeeded", "executor", "epoch and owner; result recorded once"))
    rows.append(
        Transition(
            "running", "retrying", "executor or supervisor", "epoch and owner; attempts left, or snoozed"
        )
    )
    rows.append(
        Transition(
            "running", "failed", "executor or supervisor", "epoch and owner; attempts used up, or in vain"
        )
    )
    rows.append(Transition("running", "stopping", "cancel or timeout", "epoch and owner"))
    rows.append(
        Transition("stopping", "stopping", "cancel", "epoch and owner; it was stopping for another reason")
    )
    rows.append(
        Transition("stopping", "succeeded", "executor", "epoch and owner; it returned before it was stopped")
    )
    seen = "cancel was asked; the code was seen to stop"
    rows.append(Transition("stopping", "cancelled", "supervisor or rescue", seen))
    error = "timeout, or an error while stopping"
    rows.append(Transition("stopping", "retrying", "supervisor", f"{error}; attempts left, or snoozed"))
    rows.append(Transition("stopping", "failed", "supervisor", f"{error}; attempts used up, or in vain"))
    stopped = "seen to stop"
    rows.append(
        Transition("stopping", "queued", "drain or rescue", f"{stopped} and on_lost=retry; not counted")
    )
    rows.append(Transition("stopping", "failed", "drain or rescue", f"{stopped} and on_lost=fail"))
    rows.append(Transition("running", "queued", "rescue", "lost and on_lost=retry; not counted"))
    rows.append(Transition("running", "failed", "rescue", "lost and on_lost=fail, or the third loss"))
    rows += [Transition(frm, "cancelled", "cancel", "still waiting") for frm in WAITING]
    rows.append(
        Transition(
            "retrying",
            "retrying",
            "cancel",
            "its last attempt, a thread, still runs: cancelled when it returns",
        )
    )
    rows += [Transition(frm, "expired", "timer", "expires_at passed") for frm in WAITING]
    ends: tuple[State, ...] = ("succeeded", "failed", "cancelled", "expired")
    rows += [Transition(frm, None, "retention or delete", "final") for frm in ends]
    return tuple(rows)


TRANSITIONS: Final[tuple[Transition, ...]] = _ways()
"""The whole table. `None → running` is submit and claim in one transaction; by `stopping → stopping` a cancel of what
stops for a timeout or the drain is on the disk before it is answered, and so is by `retrying → retrying` one of what
waits for its given-up thread."""

_ALLOWED: Final[frozenset[tuple[State | None, State | None]]] = frozenset((t.frm, t.to) for t in TRANSITIONS)


def allowed(frm: State | None, to: State | None) -> bool:
    """Whether the table has this way."""
    return (frm, to) in _ALLOWED


def sources(to: State, among: tuple[State, ...] = STATES) -> tuple[State, ...]:
    """The states from which `to` may be reached, for a WHERE clause; `among` narrows them."""
    return tuple(state for state in among if (state, to) in _ALLOWED)


def diagram() -> str:
    """The table as a Mermaid state diagram; `docs/states.md` holds it and a test compares."""
    lines = ["stateDiagram-v2"]
    seen: dict[tuple[str, str], list[str]] = {}
    for way in TRANSITIONS:
        ends = (way.frm or "[*]", way.to or "[*]")
        who = seen.setdefault(ends, [])
        if way.who not in who:
            who.append(way.who)
    lines += [f"    {frm} --> {to}: {', '.join(who)}" for (frm, to), who in seen.items()]
    return "\n".join(lines) + "\n"

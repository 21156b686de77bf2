"""Can wrong tokens be told apart by time? By hand: `python -m bench.guesses [samples]`; it needs a quiet machine.

Each kind of wrong token is given to the gate itself, without sockets, whose noise would hide everything, in random
order. Each kind is compared with the first by Welch's test on the times below the 90th percentile, and a control (the
same kind twice) says how far to trust it. A p below 0.01 for a kind while the control is above it would be a finding.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from contextlib import suppress
from math import erfc, sqrt
from statistics import fmean, variance
from time import perf_counter_ns
from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock
from twisted.web.http_headers import Headers

from jobsvc.http.auth import Gate
from jobsvc.http.guessing import WrongTokens
from jobsvc.http.registry import Registry
from jobsvc.http.tickets import Tickets
from jobsvc.model.errors import JobsvcError
from jobsvc.model.tokens import mint, taken_apart
from jobsvc.store.memory import InlineStore

SAMPLES = 100_000
KEPT = 0.9
"""Of the times of each kind: the rest are interruptions."""


def gate_and_token() -> tuple[Gate, str]:
    """A gate that knows one token."""
    clock, made = Clock(), mint(random.randbytes)
    first = taken_apart(made.text)
    assert first is not None
    registry = Registry(InlineStore(), first, None, clock, lambda: 0, random.randbytes)
    registry.loaded = True
    return Gate(registry, Tickets(random.randbytes), WrongTokens(clock), lambda: 0), made.text


def other(letter: str) -> str:
    return "A" if letter != "A" else "B"


def kinds(text: str) -> dict[str, str]:
    """Wrong tokens by what is wrong with them, all of one length."""
    name, _, secret = text.partition(".")
    return {
        "first letter of the secret": f"{name}.{other(secret[0])}{secret[1:]}",
        "the same again (control)": f"{name}.{other(secret[0])}{secret[1:]}",
        "last letter of the secret": f"{name}.{secret[:-1]}{other(secret[-1])}",
        "every letter of the secret": f"{name}.{'A' * len(secret)}",
        "unknown id": f"{name[:-1]}{other(name[-1])}.{secret}",
    }


def timed(admit: Callable[[Any], None], request: Any) -> int:
    """Nanoseconds that one refusal takes."""
    begun = perf_counter_ns()
    with suppress(JobsvcError):
        admit(request)
    return perf_counter_ns() - begun


def welch_p(one: list[int], two: list[int]) -> float:
    """How likely such means are when both are drawn from the same times; samples are many, so by the normal law."""
    z = (fmean(one) - fmean(two)) / sqrt(variance(one) / len(one) + variance(two) / len(two))
    return erfc(abs(z) / sqrt(2))


def main() -> None:
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else SAMPLES
    gate, text = gate_and_token()
    requests = {
        kind: SimpleNamespace(
            path=b"/v1/jobs",
            query=b"",
            client_address="unix",
            requestHeaders=Headers({b"Authorization": [f"Bearer {wrong}".encode()]}),
        )
        for kind, wrong in kinds(text).items()
    }
    times: dict[str, list[int]] = {kind: [] for kind in requests}
    order = list(requests)
    for _ in range(samples):
        random.shuffle(order)
        for kind in order:
            times[kind].append(timed(gate.admit, requests[kind]))
    kept = {kind: sorted(values)[: int(len(values) * KEPT)] for kind, values in times.items()}
    base = next(iter(kept))
    for kind, values in kept.items():
        p = "" if kind == base else f"p = {welch_p(kept[base], values):.3f}"
        print(f"{kind:28} mean {fmean(values):8.1f} ns  {p}")


if __name__ == "__main__":
    main()

"""F3: the table of the routes of the daemon itself: health, figures, facts, reload."""

from __future__ import annotations

from typing import Final

from jobsvc.http import api_daemon, query
from jobsvc.http.contract import shapes
from jobsvc.http.route import JSON, Answer, Route, look

DAEMON_ROUTES: Final[tuple[Route, ...]] = (
    look("/v1/workers", "workers", api_daemon.workers, "The workers.", shapes.Workers),
    look(
        "/v1/executors",
        "executors",
        api_daemon.executors,
        "What each executor can and cannot do.",
        shapes.Executors,
    ),
    look("/v1/info", "info", api_daemon.info, "Version, durability, limits, defaults.", api_daemon.InfoView),
    Route(
        method="POST",
        path="/v1/reload",
        name="reload",
        scope="operate",
        whole_daemon=True,
        handler=api_daemon.reload,
        doc="Replace the workers by new ones with the code as it is now; no job is lost.",
        answers={200: Answer("The tasks in force.", api_daemon.ReloadView)},
        refusals=("conflict", "draining"),
    ),
    Route(
        method="GET",
        path="/livez",
        name="livez",
        handler=api_daemon.livez,
        doc="200 as long as the daemon answers.",
        answers={200: Answer("It lives.", media=("text/plain",))},
        scope=None,
    ),
    Route(
        method="GET",
        path="/healthz",
        name="healthz",
        handler=api_daemon.livez,
        doc="The same as /livez.",
        answers={200: Answer("It lives.", media=("text/plain",))},
        scope=None,
    ),
    Route(
        method="GET",
        path="/readyz",
        name="readyz",
        handler=api_daemon.readyz,
        doc="Whether jobs can be taken and run; with verbose (and a token) why not.",
        answers={
            200: Answer("Ready.", shapes.Readiness, media=("text/plain", JSON)),
            503: Answer("Not ready.", shapes.Readiness, media=("text/plain", JSON)),
        },
        query={"verbose": query.flag("List the checks.")},
        scope=None,
    ),
    Route(
        method="GET",
        path="/metrics",
        name="metrics",
        handler=api_daemon.metrics,
        whole_daemon=True,
        doc="Figures for Prometheus.",
        answers={200: Answer("The text format.", media=("text/plain",))},
        refusals=("overloaded",),
    ),
)

"""The daemon itself: health, metrics, info, workers, executors, reload, and the description of the API."""

from __future__ import annotations

import msgspec

from jobsvc.http.problems import PROBLEM_TYPES
from jobsvc.model.errors import CODES, JobsvcError
from tests.http.house import House


def test_health(house: House) -> None:
    """The one always; readyz only when all is well, verbose tells what is not."""
    assert (house.ask("GET", "/livez").status, house.ask("GET", "/healthz").status) == (200, 200)
    assert house.ask("GET", "/readyz").body == b"ok\n"
    house.checks.append(("workers", False, "no manifest yet"))
    assert house.ask("GET", "/readyz").status == 503
    verbose = house.ask("GET", "/readyz?verbose")
    assert (verbose.status, verbose.json()["ready"]) == (503, False)
    assert {"check": "workers", "ok": False, "detail": "no manifest yet"} in verbose.json()["checks"]
    house.checks.pop()
    house.engine.stop_claiming()
    assert (house.ask("GET", "/readyz").status, house.ask("GET", "/livez").status) == (503, 200)


def test_a_broken_module_is_told_and_the_daemon_stays_ready(house: House) -> None:
    """The others work: no supervisor is to restart it; who looks closer sees what is wrong."""
    house.flawed = True
    assert house.ask("GET", "/readyz").status == 200
    verbose = house.ask("GET", "/readyz?verbose")
    assert (verbose.status, verbose.json()["ready"]) == (200, True)
    flaw = {"check": "module other", "ok": False, "detail": "broken since then: ImportError"}
    assert flaw in verbose.json()["checks"]
    assert 'jobsvc_module_broken{module="other"} 1.0' in house.ask("GET", "/metrics").body.decode()


def test_info(house: House) -> None:
    """Version, boot, durability, limits, defaults."""
    info = house.ask("GET", "/v1/info").json()
    assert set(info) == {
        "version",
        "boot",
        "started_at",
        "durability",
        "limits",
        "defaults",
        "tasks",
        "draining",
    }
    assert (info["boot"], info["durability"], info["draining"], info["tasks"]) == (
        "boot-1",
        "memory",
        False,
        6,
    )
    assert info["limits"]["args_max_bytes"] == 256 * 1024
    assert info["defaults"]["policy"]["max_attempts"] == 1


def test_workers_and_executors(house: House) -> None:
    """The truth table says who cannot kill."""
    assert house.ask("GET", "/v1/workers").json() == {"workers": [{"id": "w1", "kind": "io", "pid": 4711}]}
    rows = {row["executor"]: row for row in house.ask("GET", "/v1/executors").json()["executors"]}
    assert set(rows) == {"loop", "thread", "process", "command"}
    assert [name for name, row in rows.items() if not row["can_kill"]] == ["thread"]
    assert rows["process"]["parallel_cpu"] is True


def test_reload(house: House) -> None:
    """200 with the tasks in force; a module that does not load is told."""
    reply = house.ask("POST", "/v1/reload")
    assert (reply.status, reply.json()["tasks"], house.reloads) == (200, sorted(house.engine.tasks), 1)
    house.reload_error = JobsvcError("conflict", "tasks.py: SyntaxError")
    failed = house.ask("POST", "/v1/reload")
    assert (failed.status, failed.json()["detail"]) == (409, "tasks.py: SyntaxError")


def test_metrics(house: House) -> None:
    """Requests by route and status, latency, connections, the engine's counters; no endless series."""
    house.done()
    house.ask("GET", "/nowhere")
    house.ask("BREW", "/v1/jobs")
    text = house.ask("GET", "/metrics").body.decode()
    assert 'jobsvc_http_requests_total{method="POST",route="jobs.submit",status="201"} 1.0' in text
    assert 'jobsvc_http_requests_total{method="other",route="none",status="404"} 1.0' in text
    assert "BREW" not in text
    assert 'jobsvc_http_request_seconds_bucket{le="+Inf",route="jobs.submit"} 1.0' in text
    assert 'jobsvc_ended_total{state="succeeded",task="echo"} 1.0' in text
    assert "jobsvc_submitted_total 1.0" in text
    assert 'jobsvc_running{executor="process"} 0.0' in text
    assert "# HELP jobsvc_queued Jobs that wait for a slot." in text
    assert "jobsvc_http_connections" in text
    other = House()
    assert "echo" not in other.ask("GET", "/metrics").body.decode()
    other.close()


def test_refused_writes_are_counted_by_reason(house: House) -> None:
    """An outcome that another attempt's fence refuses; every reason is there from the start."""
    house.submit()
    (active,) = house.engine.board.active.values()
    active.job.owner = "someone else"
    house.worker.succeed(house.worker.started.pop())
    text = house.ask("GET", "/metrics").body.decode()
    assert 'jobsvc_refused_writes_total{reason="owner"} 1.0' in text
    for reason in ("gone", "epoch", "final", "state"):
        assert f'jobsvc_refused_writes_total{{reason="{reason}"}} 0.0' in text


def test_every_route_gives_only_the_refusals_it_describes(house: House) -> None:
    """The table is what clients are generated from: statuses seen here must stand there."""
    document = house.ask("GET", "/openapi.json").json()
    job = house.done()
    for route in house.api.routes:
        target = route.path.replace("{job_id}", job["id"]).replace("{task}", "nope").replace("{name}", "out")
        for suffix in ("", "?colour=red"):
            wire = house.start(route.method, target + suffix)
            status = wire.replies()[0].status
            answers = document["paths"][route.path][route.method.lower()]["responses"]
            assert str(status) in answers or (suffix and status == 400), (route.name, status)


def test_every_code_has_its_type() -> None:
    """The closed list and the table are the same."""
    assert set(PROBLEM_TYPES) == set(CODES)
    assert all(400 <= kind.status < 600 for kind in PROBLEM_TYPES.values())
    assert {code for code, kind in PROBLEM_TYPES.items() if kind.retry_safe} == {
        "rate_limited", "queue_full", "draining", "overloaded", "disk_full", "request_timeout",
    }  # fmt: skip


def test_a_configured_ceiling_for_arguments_raises_the_body_limit() -> None:
    """--args-max above 1 MiB would be in vain otherwise."""
    from jobsvc.engine.engine import EngineConfig

    house = House(config=EngineConfig(args_max_bytes=4 * 1024 * 1024))
    body = msgspec.json.encode({"task": "echo", "args": {"x": "a" * 3_000_000}})
    assert house.ask("POST", "/v1/jobs", raw=body).status == 201
    assert house.ask("GET", "/v1/info").json()["limits"]["args_max_bytes"] == 4 * 1024 * 1024
    house.close()

"""Real daemons for the tests of faults: the fixtures of the integration tests."""

from __future__ import annotations

from tests.integration.conftest import start_daemon, wheel_env, wheel_file  # noqa: F401

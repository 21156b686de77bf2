"""Fixtures for tests of faults: real daemons, as the integration tests have them."""

from __future__ import annotations

from tests.integration.conftest import start_daemon, wheel_env, wheel_file

__all__ = ["start_daemon", "wheel_env", "wheel_file"]

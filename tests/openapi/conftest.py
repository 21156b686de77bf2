"""Fixtures for tests of the contract: a daemon in memory, and real ones as the integration tests have them."""

from __future__ import annotations

from tests.http.conftest import house
from tests.integration.conftest import start_daemon, wheel_env, wheel_file

__all__ = ["house", "start_daemon", "wheel_env", "wheel_file"]

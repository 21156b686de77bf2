"""Real daemons from the built wheel, as the integration tests have them."""

from tests.integration.conftest import start_daemon, wheel_env, wheel_file  # noqa: F401

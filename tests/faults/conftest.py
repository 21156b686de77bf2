from tests.integration.conftest import start_daemon, wheel_env, wheel_file  # noqa: F401

"""F5: the `jobsvc` command. Here is only its door: what a command needs is imported when that command runs."""

from __future__ import annotations


def main() -> None:
    """Run the command line of this process and end it with the documented exit code."""
    import sys

    from jobsvc.cli.root import run

    sys.exit(run(sys.argv[1:]))

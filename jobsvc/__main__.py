"""F5: `python -m jobsvc` is the `jobsvc` command."""

from __future__ import annotations

from jobsvc.cli import main

if __name__ == "__main__":
    main()

"""The main of a cpu worker.

F2, started with `python -m jobsvc.worker.cpu`. Imports neither Twisted nor asyncio: that keeps it small and quick to
start.
"""

from __future__ import annotations

import os
import socket
import sys
import threading

from jobsvc.model.frames import Loading
from jobsvc.worker.boot import hello, load_code, read_config
from jobsvc.worker.capture import capture
from jobsvc.worker.compute import ComputeWorker
from jobsvc.worker.link import Link, take_over
from jobsvc.worker.mark import Mark
from jobsvc.worker.outbox import Outbox


def main() -> None:
    """Serve the daemon named by the command line until it says quit or is gone."""
    config = read_config(sys.argv[1:])
    outbox = Outbox()
    link = Link(socket.socket(fileno=take_over(config.channel)), outbox)
    mark = Mark(config.mark)
    outbox.post(hello(config))
    link.flush()
    found: list[ComputeWorker] = []
    capture(lambda: found[0].current if found else None)

    def announce(module: str) -> None:
        outbox.post(Loading(module))
        link.flush()

    codes, manifest = load_code(config, announce)
    outbox.post(manifest)
    link.flush()
    worker = ComputeWorker(codes, link, outbox, mark)
    found.append(worker)
    os.register_at_fork(after_in_child=worker.forsake)
    threading.Thread(target=worker.listen, name="listen", daemon=True).start()
    worker.work()


if __name__ == "__main__":
    main()

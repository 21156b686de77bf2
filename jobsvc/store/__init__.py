"""F2: durable truth: the `Store` of `jobsvc.ports` on SQLite, threaded for a file and inline for memory."""

"""F2: code that runs inside worker processes, never in the daemon: launcher, mains, executors, captured output."""

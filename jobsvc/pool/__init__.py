"""F2: the daemon's side of workers: starting, talking to, watching and ending them. Knows no store and no engine."""

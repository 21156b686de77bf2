"""F1: the Twisted tools that every room above shares: pools of threads, the background door, waiting."""

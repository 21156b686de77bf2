"""F1: what task authors use: `task`, `command`, `Context`, and what finds tasks in modules.

Free of Twisted and usable without a daemon; workers build on it.
"""

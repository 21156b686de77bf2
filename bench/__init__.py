"""Measures a real daemon beside the bare limits of the machine. `python -m bench --help`."""

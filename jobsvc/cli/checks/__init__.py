"""F5: the checks of `jobsvc doctor`: each a function that looks at a `Scene` and gives a `Finding`."""

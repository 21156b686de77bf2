"""F0: the vocabulary. Pure values and tables; imports nothing of the project above it, no Twisted, no I/O."""

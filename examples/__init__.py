"""A task module and programs that use it. `make demo` runs them; copy what you need."""

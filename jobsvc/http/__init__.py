"""F3: the edge: HTTP in, engine calls out. No rule about jobs lives here, only their shapes, statuses and streams."""

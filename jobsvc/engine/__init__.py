"""F2: the engine: admits jobs, hands them to workers, judges how attempts end, tells those who wait."""

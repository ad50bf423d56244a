"""One-time experiments behind design decisions."""

"""The canonical migrations: read, split, lint, apply, verify."""

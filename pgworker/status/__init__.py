"""Read models, and commands for people."""

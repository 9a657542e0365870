"""Studies that need workers and runs together."""

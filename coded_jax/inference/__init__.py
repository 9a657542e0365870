"""Coded inference: a coded stage, a chain of them, and what it costs."""

"""Latency without workers: straggler models, strategies, simulator, planner."""
